"""The status document. Fields are only ever added."""

from __future__ import annotations

import msgspec

from recyclery.common.pool_state import PoolState


class ContainerStatus(msgspec.Struct):
    """Memory of the container in bytes; `source` says where it was read.

    Above `retire_bytes`, `high_bytes` and `hard_bytes` the floor must not come: the levels of the settings.
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
    """One pool child; `pss_bytes` is of its whole tree, and the sum of the three after `task`.

    PSS is dear to read: all four are 0 in a glance. `tree_bytes` is what is decided on, RssAnon + RssShmem, and
    `tree_browser_bytes` the browsers' part of it. `task_seconds` is how long the task has run, where known.
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
    """A worker beside the one that serves the pool; `tasks` are the names of those that it runs."""

    slot: str
    node: str | None
    pid: int | None
    tasks: list[str]


class PoolStatus(msgspec.Struct):
    """One pool; `queue_depth` is null where it is not known.

    `node`, `pid` and `slot` are those of the worker that takes its tasks. Its `children` are also those of
    `successor`, which starts to take over, and of former workers, which are `draining`. One that is `holding`
    was told to take no tasks for now.
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
    """Browsers now by kind, processes defunct now, browsers killed and Grid sessions ended so far.

    Of the `live` ones of living children `in_use` are a running task's or the child's own (`kept` for its next
    tasks among them), `leftovers` a finished task's, and at `runaway` ones a task hangs. `orphans` are dead
    children's. `strangers` no pool started.
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
    """Tasks given back to their queues after a death so far, and tasks that are parked now."""

    reclaimed: int
    parked: int


class GovernorStatus(msgspec.Struct):
    """What the governor itself costs; `pss_bytes` is 0 in a glance."""

    pss_bytes: int
    cpu_seconds: float


class Event(msgspec.Struct):
    """What was done, or has happened, with its reason, as the log has it; whether it did what it was for."""

    age_seconds: float
    text: str
    done: bool


class Status(msgspec.Struct):
    """Everything the governor knows now; `recent` begins with the latest."""

    container: ContainerStatus
    pools: dict[str, PoolStatus]
    browsers: BrowserStatus
    tasks: TaskStatus
    governor: GovernorStatus
    recent: list[Event]
