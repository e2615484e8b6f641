"""The states of a pool, and what health checks, metrics, alerts and `top` make of each."""

from supervisor.states import ProcessStates, getProcessStateDescription

from contracts import product
from contracts.frozen import assert_frozen, frozen
from contracts.sources import strings

STATES = [line.partition(":")[0] for line in frozen("pool_states")]


def test_each_state_of_a_pool_is_judged_as_it_was() -> None:
    assert_frozen("pool_states", map(product.judge_state, STATES))


def test_the_frozen_states_are_those_that_there_are() -> None:
    codes = [code for name, code in vars(ProcessStates).items() if name.isupper()]
    engines = {getProcessStateDescription(code).lower() for code in codes}
    assert engines <= {*STATES} <= engines | strings()
