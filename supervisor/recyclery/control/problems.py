"""What is wrong, the worst first: who looks at night must not have to search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recyclery.common.pool_state import PoolState
from recyclery.common.units import format_bytes
from recyclery.control.status_schema import ContainerStatus, PoolStatus, Status


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong; `bad` where nothing mends it by itself in a moment."""

    text: str
    bad: bool


def find_troubles(status: Status, oom_kills_before: int) -> list[Trouble]:
    """Return all that is wrong; of OOM kills only those since there were so many."""
    found = [
        *check_memory(status.container, oom_kills_before),
        *(trouble for name, pool in status.pools.items() for trouble in check_pool(name, pool)),
        *check_parked(status.tasks.parked),
    ]
    return sorted(found, key=lambda trouble: not trouble.bad)


def check_memory(container: ContainerStatus, oom_kills_before: int) -> Iterator[Trouble]:
    """Compare the floor with its levels."""
    kills = container.oom_kills - oom_kills_before
    if kills > 0:
        yield Trouble(
            f"the kernel killed {kills} process{'es' if kills > 1 else ''} for want of memory", bad=True
        )
    held = f"{format_bytes(container.floor_bytes)} cannot be reclaimed"
    if container.floor_bytes >= container.hard_bytes:
        yield Trouble(f"memory is above the hard level: {held}", bad=True)
    elif container.floor_bytes >= container.high_bytes:
        yield Trouble(f"memory is above the high level: {held}", bad=True)
    elif container.floor_bytes >= container.retire_bytes:
        yield Trouble(f"memory is above the retire level: {held}", bad=False)


def check_pool(name: str, pool: PoolStatus) -> Iterator[Trouble]:
    """Say why a pool takes no tasks."""
    waiting = tell_waiting(pool.queue_depth)
    if pool.state is not PoolState.RUNNING:
        yield Trouble(f"{name} is {pool.state}{waiting}", bad=not pool.state.is_changing)
    elif pool.holding:
        yield Trouble(f"{name} is on hold and takes no tasks{waiting}", bad=False)


def check_parked(parked: int) -> Iterator[Trouble]:
    """Tell of tasks that wait for a person."""
    if parked:
        what = "1 task is" if parked == 1 else f"{parked} tasks are"
        yield Trouble(f"{what} parked after repeated deaths: recyclery parked list", bad=False)


def tell_waiting(depth: int | None) -> str:
    """Return the end of a sentence on a pool that takes no tasks."""
    if not depth:
        return ""
    return ", 1 task waits" if depth == 1 else f", {depth} tasks wait"
