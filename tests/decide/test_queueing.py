"""How many containers a load needs: the queue's formulas, and what they are used for."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recyclery.decide.queueing import (
    MAX_UTILISATION,
    ContainerRates,
    erlang_c,
    join_queue,
    plan_fleet,
    response_quantile,
)

SECOND = ContainerRates(slots=4, per_second=4.0, ran_seconds=(1.0,) * 50, ran_variation=0.0)


@pytest.mark.parametrize(
    ("slots", "offered", "expected"),
    # From tables of Erlang's C.
    [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (5, 4.0, 0.5541), (10, 8.0, 0.4092)],
)
def test_as_many_find_all_slots_taken_as_the_tables_say(slots: int, offered: float, expected: float) -> None:
    assert erlang_c(slots, offered / slots) == pytest.approx(expected, abs=1e-4)


def test_the_wait_for_one_place_with_random_arrivals_and_tasks_is_the_known_one() -> None:
    queue = join_queue(1, 0.8, 1.0, 1.0)
    assert queue.wait_seconds == pytest.approx(4.0)
    assert queue.passes(10) == pytest.approx(0.8 * math.exp(-0.2 * 10))


def test_tasks_that_do_not_vary_wait_half_as_long() -> None:
    assert join_queue(1, 0.8, 1.0, 0.5).wait_seconds == pytest.approx(2.0)


def test_the_time_to_the_end_has_both_wait_and_run_in_it() -> None:
    queue = join_queue(1, 0.8, 1.0, 1.0)
    # 95 % of waits are below ln(0.8 / 0.05) / 0.2, and every task runs 3 s.
    expected = math.log(0.8 / 0.05) / 0.2 + 3
    assert response_quantile(queue, [3.0], 0.95) == pytest.approx(expected, rel=1e-6)


@given(st.floats(min_value=0.01, max_value=500))
def test_no_fleet_is_busier_than_planned_and_none_has_a_container_too_many(arrivals: float) -> None:
    fleet = plan_fleet(arrivals, SECOND)
    assert fleet is not None
    assert fleet.busy_share <= MAX_UTILISATION + 1e-9
    fewer = fleet.containers - 1
    assert not fewer or arrivals / (fewer * SECOND.per_second) > MAX_UTILISATION


def test_a_sharper_objective_takes_more_containers() -> None:
    loose, sharp = (plan_fleet(3.1, SECOND, slo_seconds=slo) for slo in (10.0, 1.05))
    assert loose is not None
    assert sharp is not None
    assert (loose.containers, sharp.containers) == (1, 2)
    assert sharp.p95_seconds <= 1.05


def test_an_objective_shorter_than_the_tasks_is_met_by_no_number() -> None:
    assert plan_fleet(1.0, SECOND, slo_seconds=0.5) is None


def test_arrivals_in_bursts_wait_longer() -> None:
    random, bursts = (plan_fleet(3.0, SECOND, arrivals_variation=variation) for variation in (1.0, 3.0))
    assert random is not None
    assert bursts is not None
    assert bursts.wait_seconds == pytest.approx(9 * random.wait_seconds)
