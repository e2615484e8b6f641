"""Which worker serves a pool that has two."""

import pytest

from recyclery.observe.active_worker import split_serving
from recyclery.observe.snapshot import PoolView


def view(slot: str, state: str, started: float, *, pid: int | None = 10) -> PoolView:
    return PoolView(name=slot.removesuffix("-b"), state=state, pid=pid, slot=slot, started=started)


def down(slot: str, state: str, started: float) -> PoolView:
    return view(slot, state, started, pid=None)


@pytest.mark.parametrize(
    ("first", "second", "serving", "others"),
    [
        (view("slow", "running", 1), down("slow-b", "stopped", -9e9), "slow", []),
        (view("slow", "running", 1), view("slow-b", "starting", 2), "slow", ["slow-b"]),
        (view("slow", "starting", 2), view("slow-b", "running", 1), "slow-b", ["slow"]),
        (view("slow", "draining", 1), view("slow-b", "starting", 2), "slow-b", ["slow"]),
        (down("slow", "exited", 1), view("slow-b", "starting", 2), "slow-b", []),
        (view("slow", "draining", 1), down("slow-b", "stopped", -9e9), "slow", []),
        (down("slow", "stopped", 1), down("slow-b", "backoff", 0), "slow-b", []),
        (down("slow", "stopped", 1), down("slow-b", "stopped", 2), "slow-b", []),
        (view("slow", "not answering", 1), view("slow-b", "running", 2), "slow", ["slow-b"]),
    ],
)
def test_the_older_one_serves_until_it_is_told_to_leave(
    first: PoolView, second: PoolView, serving: str, others: list[str]
) -> None:
    found, beside = split_serving([first, second])
    assert ([each.slot for each in found], [each.slot for each in beside]) == ([serving], others)


def test_pools_do_not_mix() -> None:
    found, beside = split_serving([view("fast", "running", 1), view("slow-b", "running", 2)])
    assert ([each.slot for each in found], beside) == (["fast", "slow-b"], ())
