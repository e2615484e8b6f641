"""The status document, of which fields are only ever added, and what is wrong by it."""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from recyclery.common.pool_state import PoolState
from recyclery.common.units import format_bytes


class ContainerStatus(msgspec.Struct):
    """Memory of the container in bytes, and where it was read.

    `floor_bytes` is unreclaimable memory, `unattributed_bytes` its part that neither children nor main
    processes hold. The levels from `retire_bytes` to `hard_bytes` are those of the settings.
    """

    limit_bytes: int
    usage_bytes: int
    working_set_bytes: int
    floor_bytes: int
    unattributed_bytes: int
    oom_kills: int
    source: str
    retire_bytes: int
    high_bytes: int
    hard_bytes: int


class ChildStatus(msgspec.Struct):
    """One pool child with its process tree; `pss_bytes` is the sum of the three figures after `task`.

    PSS is expensive to read: all four are 0 in a glance. `tree_bytes` is what its end would free, from RssAnon
    and RssShmem; `tree_browser_bytes` is the browsers' part of it. `task_seconds` is how long the task has run,
    where known.
    """

    pid: int
    tasks_done: int
    pss_bytes: int
    age_seconds: float
    task: str | None
    python_bytes: int
    browser_bytes: int
    other_bytes: int
    tree_bytes: int
    tree_browser_bytes: int
    task_seconds: float | None


class WorkerStatus(msgspec.Struct):
    """A worker besides the pool's active one, with the names of its running tasks."""

    slot: str
    node: str | None
    pid: int | None
    tasks: list[str]


class PoolStatus(msgspec.Struct):
    """One pool; `queue_depth` is null where it is unknown.

    `node`, `pid` and `slot` are the active worker's. `children` are also those of its `successor`, which starts
    to take over, and of `draining` former workers. While `holding`, consuming is paused.
    """

    state: PoolState
    node: str | None
    pid: int | None
    queues: list[str]
    concurrency: int
    max_tasks_per_child: int
    children: list[ChildStatus]
    recycles: dict[str, int]
    queue_depth: int | None
    slot: str
    successor: WorkerStatus | None
    draining: list[WorkerStatus]
    holding: bool


class BrowserStatus(msgspec.Struct):
    """Browsers now by kind (`decide/browsers.py`), and the totals of killed browsers and ended Grid sessions.

    `live` ones are living children's: `in_use` (`kept` ones among them), `leftovers` and `runaway`. `orphans`
    are dead children's; `strangers` were started by no pool. `defunct` counts processes.
    """

    live: int
    orphans: int
    defunct: int
    reaped: int
    in_use: int
    kept: int
    leftovers: int
    runaway: int
    strangers: int
    grid_ended: int


class TaskStatus(msgspec.Struct):
    """Tasks returned to their queues after a death so far, and tasks that are parked now."""

    reclaimed: int
    parked: int


class GovernorStatus(msgspec.Struct):
    """The governor's own cost; `pss_bytes` is 0 in a glance."""

    pss_bytes: int
    cpu_seconds: float


class Event(msgspec.Struct):
    """A line of the log; `done` is False for an action that failed."""

    age_seconds: float
    text: str
    done: bool


class Status(msgspec.Struct):
    """The whole document; `recent` begins with the latest event."""

    container: ContainerStatus
    pools: dict[str, PoolStatus]
    browsers: BrowserStatus
    tasks: TaskStatus
    governor: GovernorStatus
    recent: list[Event]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong; `bad` where it does not pass by itself within moments."""

    text: str
    bad: bool


def find_status_problems(status: Status, oom_kills_before: int) -> list[Problem]:
    """Return all that is wrong, the worst first; OOM kills only above the given number."""
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
            break


def describe_handover(pool: PoolStatus) -> Iterator[str]:
    """Yield a line for each worker of a pool besides its active one."""
    if pool.successor is not None:
        yield f"{pool.successor.slot} starts to take over from {pool.slot}"
    for worker in pool.draining:
        yield f"{worker.slot} drains: {', '.join(worker.tasks) or 'no task any more'}"


def find_pool_problems(name: str, pool: PoolStatus) -> Iterator[Problem]:
    """Yield why a pool consumes no tasks."""
    depth = pool.queue_depth
    waiting = "" if not depth else ", 1 task waits" if depth == 1 else f", {depth} tasks wait"
    if pool.state is not PoolState.RUNNING:
        yield Problem(f"{name} is {pool.state}{waiting}", bad=not pool.state.is_changing)
    elif pool.holding:
        yield Problem(f"{name} is on hold and takes no tasks{waiting}", bad=False)
