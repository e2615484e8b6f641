"""What is wrong by the status document, the worst first: for `top` and the web page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recyclery.common.pool_state import PoolState
from recyclery.common.units import format_bytes
from recyclery.control.status_schema import ContainerStatus, PoolStatus, Status


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong; `bad` where it does not pass by itself within moments."""

    text: str
    bad: bool


def find_status_problems(status: Status, oom_kills_before: int) -> list[Problem]:
    """Return all that is wrong; OOM kills only above the given number."""
    found = [
        *find_memory_problems(status.container, oom_kills_before),
        *(problem for name, pool in status.pools.items() for problem in find_pool_problems(name, pool)),
    ]
    if parked := status.tasks.parked:
        tasks = "1 task is" if parked == 1 else f"{parked} tasks are"
        found.append(Problem(f"{tasks} parked after repeated deaths: recyclery parked list", bad=False))
    return sorted(found, key=lambda problem: not problem.bad)


def find_memory_problems(container: ContainerStatus, oom_kills_before: int) -> Iterator[Problem]:
    """Compare unreclaimable memory with the highest level that it has reached."""
    kills = container.oom_kills - oom_kills_before
    if kills > 0:
        yield Problem(
            f"the kernel killed {kills} process{'es' if kills > 1 else ''} for want of memory", bad=True
        )
    levels = (
        ("hard", container.hard_bytes, True),
        ("high", container.high_bytes, True),
        ("retire", container.retire_bytes, False),
    )
    for level, level_bytes, bad in levels:
        if container.floor_bytes >= level_bytes:
            held = f"{format_bytes(container.floor_bytes)} cannot be reclaimed"
            yield Problem(f"memory is above the {level} level: {held}", bad)
            return


def find_pool_problems(name: str, pool: PoolStatus) -> Iterator[Problem]:
    """Yield why a pool consumes no tasks."""
    depth = pool.queue_depth
    waiting = "" if not depth else ", 1 task waits" if depth == 1 else f", {depth} tasks wait"
    if pool.state is not PoolState.RUNNING:
        yield Problem(f"{name} is {pool.state}{waiting}", bad=not pool.state.is_changing)
    elif pool.holding:
        yield Problem(f"{name} is on hold and takes no tasks{waiting}", bad=False)
