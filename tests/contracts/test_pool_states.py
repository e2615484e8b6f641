"""The states of a pool, and how health checks, metrics, alerts and `top` judge them."""

from supervisor.states import ProcessStates, getProcessStateDescription

from contracts import product
from contracts.frozen import assert_frozen, frozen
from contracts.sources import strings

STATES = [line.partition(":")[0] for line in frozen("pool_states")]


def test_each_pool_state_is_judged_as_frozen() -> None:
    assert_frozen("pool_states", map(product.judge_state, STATES))


def test_the_frozen_pool_states_are_complete() -> None:
    codes = [code for name, code in vars(ProcessStates).items() if name.isupper()]
    engines = {getProcessStateDescription(code).lower() for code in codes}
    assert engines <= {*STATES} <= engines | strings()
