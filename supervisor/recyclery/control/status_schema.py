"""The status document. Fields are only ever added."""

from __future__ import annotations

import msgspec

from recyclery.common.pool_state import PoolState


class ContainerStatus(msgspec.Struct):
    """Memory of the container in bytes, and where it was read.

    `floor_bytes` is unreclaimable memory, `unattributed_bytes` its part outside the pools' children. The levels
    from `retire_bytes` to `hard_bytes` are those of the settings.
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

    PSS is expensive to read: all four are 0 in a glance. Decisions use `tree_bytes`, RssAnon + RssShmem;
    `tree_browser_bytes` is the browsers' part of it. `task_seconds` is how long the task has run, where known.
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
