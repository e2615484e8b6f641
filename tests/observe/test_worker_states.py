"""Which worker serves a pool that has two."""

import pytest

from recyclery.common.pool_state import PoolState
from recyclery.observe.snapshot import PoolView
from recyclery.observe.workers import choose_active_workers


def view(slot: str, state: PoolState, started: float, *, pid: int | None = 10) -> PoolView:
    return PoolView(name=slot.removesuffix("-b"), state=state, pid=pid, slot=slot, started=started)


def down(slot: str, state: PoolState, started: float) -> PoolView:
    return view(slot, state, started, pid=None)


@pytest.mark.parametrize(
    ("first", "second", "serving", "others"),
    [
        (view("slow", PoolState.RUNNING, 1), down("slow-b", PoolState.STOPPED, -9e9), "slow", []),
        (view("slow", PoolState.RUNNING, 1), view("slow-b", PoolState.STARTING, 2), "slow", ["slow-b"]),
        (view("slow", PoolState.STARTING, 2), view("slow-b", PoolState.RUNNING, 1), "slow-b", ["slow"]),
        (view("slow", PoolState.DRAINING, 1), view("slow-b", PoolState.STARTING, 2), "slow-b", ["slow"]),
        (down("slow", PoolState.EXITED, 1), view("slow-b", PoolState.STARTING, 2), "slow-b", []),
        (view("slow", PoolState.DRAINING, 1), down("slow-b", PoolState.STOPPED, -9e9), "slow", []),
        (down("slow", PoolState.STOPPED, 1), down("slow-b", PoolState.BACKOFF, 0), "slow-b", []),
        (down("slow", PoolState.STOPPED, 1), down("slow-b", PoolState.STOPPED, 2), "slow-b", []),
        (view("slow", PoolState.NOT_ANSWERING, 1), view("slow-b", PoolState.RUNNING, 2), "slow", ["slow-b"]),
    ],
)
def test_the_older_one_serves_until_it_is_told_to_leave(
    first: PoolView, second: PoolView, serving: str, others: list[str]
) -> None:
    found, beside = choose_active_workers([first, second])
    assert ([each.slot for each in found], [each.slot for each in beside]) == ([serving], others)


def test_pools_do_not_mix() -> None:
    found, beside = choose_active_workers(
        [view("fast", PoolState.RUNNING, 1), view("slow-b", PoolState.RUNNING, 2)]
    )
    assert ([each.slot for each in found], beside) == (["fast", "slow-b"], ())
