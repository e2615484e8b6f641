"""Rung 3: when a pool is told to take no more tasks, and when to take them again."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from recyclery.common.pool_state import PoolState
from recyclery.decide.actions import PauseConsuming
from recyclery.decide.memory_model import PoolModel
from recyclery.decide.pressure import pause_pools
from recyclery.observe.snapshot import Snapshot
from support.snapshots import LEARNED, MIB, SETTINGS, child, slow_view, snapshot


def near(floor_mib: int, *, holding: bool | None = False, busy: bool = False) -> Snapshot:
    one = child(task_id="t" if busy else None)
    return snapshot(one, floor_mib=floor_mib, pools=(slow_view(holding=holding),))


def holds(seen: Snapshot) -> list[PauseConsuming]:
    return list(pause_pools(seen, LEARNED, SETTINGS))


def test_near_the_limit_a_pool_whose_next_task_does_not_fit_is_held() -> None:
    (hold,) = holds(near(910))
    assert (hold.pool, hold.on, hold.renewed) == ("slow", True, False)
    assert "910 MiB cannot be reclaimed" in hold.reason


def test_below_the_high_level_nothing_is_held() -> None:
    assert holds(near(890)) == []


def test_a_pool_that_can_start_no_further_task_anyway_is_not_held() -> None:
    assert holds(near(910, busy=True)) == []


def test_a_hold_goes_on_until_the_level_is_left_by_far() -> None:
    (hold,) = holds(near(820, holding=True))
    assert (hold.on, hold.renewed) == (True, True)
    (hold,) = holds(near(790, holding=True))
    assert not hold.on


def test_a_pool_whose_next_task_fits_is_let_go_though_memory_is_short() -> None:
    small = replace(LEARNED, models={})
    (hold,) = pause_pools(near(910, holding=True), small, SETTINGS)
    assert not hold.on


def test_a_task_that_just_fits_does_not_end_a_hold() -> None:
    small = replace(LEARNED, models={"slow": PoolModel(baseline_bytes=50 * MIB, tails=(30 * MIB,) * 200)})
    tail = small.headroom_bytes("slow") >> 20
    (held,) = pause_pools(near(950 - tail - 20, holding=True), small, SETTINGS)
    (free,) = pause_pools(near(950 - tail - 35, holding=True), small, SETTINGS)
    assert (held.on, free.on) == (True, False)


def test_a_silent_worker_is_not_asked() -> None:
    assert holds(snapshot(child(), floor_mib=910, pools=(slow_view(state=PoolState.NOT_ANSWERING),))) == []


def test_a_worker_that_cannot_be_told_is_not() -> None:
    assert holds(near(990, holding=None)) == []


@given(st.integers(0, 1024), st.integers(0, 900))
def test_a_hold_is_not_let_go_by_the_look_that_would_have_begun_it(floor_mib: int, tail_mib: int) -> None:
    past = replace(LEARNED, models={"slow": PoolModel(50 * MIB, (tail_mib * MIB,) * 200)})
    begun = list(pause_pools(near(floor_mib), past, SETTINGS))
    (kept,) = pause_pools(near(floor_mib, holding=True), past, SETTINGS)
    assert kept.on or not begun
