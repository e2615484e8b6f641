"""Status documents made by hand: a fast and a slow pool in 1 GiB, all well, unless said otherwise."""

from msgspec import structs

from recyclery.common.pool_state import PoolState
from recyclery.control.status_schema import (
    BrowserStatus,
    ChildStatus,
    ContainerStatus,
    Event,
    GovernorStatus,
    PoolStatus,
    Status,
    TaskStatus,
    WorkerStatus,
)

MIB = 1 << 20


def child(pid: int = 20, task: str | None = None, **rest: object) -> ChildStatus:
    """A child of 60 MiB that is idle, or has run its task for 83 s."""
    values = {
        "tasks_done": 3,
        "pss_bytes": 0,
        "age_seconds": 312.0,
        "python_bytes": 0,
        "browser_bytes": 0,
        "other_bytes": 0,
        "tree_bytes": 60 * MIB,
        "tree_browser_bytes": 0,
        "task_seconds": None if task is None else 83.0,
    }
    return ChildStatus(pid=pid, task=task, **(values | rest))  # type: ignore[arg-type]


def pool(name: str, *children: ChildStatus, **rest: object) -> PoolStatus:
    """A pool that runs one task at a time."""
    values = {
        "state": PoolState.RUNNING,
        "node": f"{name}@host",
        "pid": 10,
        "queues": [name],
        "concurrency": 1,
        "max_tasks_per_child": 10,
        "recycles": {},
        "queue_depth": 0,
        "slot": name,
        "successor": None,
        "draining": [],
        "holding": False,
    }
    return PoolStatus(children=list(children), **(values | rest))  # type: ignore[arg-type]


def drains(slot: str, *tasks: str) -> WorkerStatus:
    """A worker beside the one that serves its pool."""
    return WorkerStatus(slot=slot, node=f"{slot}@host", pid=11, tasks=list(tasks))


def status(
    *events: Event,
    pools: dict[str, PoolStatus] | None = None,
    floor_mib: int = 400,
    oom_kills: int = 0,
    parked: int = 0,
) -> Status:
    """A whole document."""
    floor = floor_mib * MIB
    return Status(
        container=ContainerStatus(
            limit_bytes=1000 * MIB,
            usage_bytes=floor,
            working_set_bytes=floor,
            floor_bytes=floor,
            unattributed_bytes=90 * MIB,
            oom_kills=oom_kills,
            source="a test",
            retire_bytes=800 * MIB,
            high_bytes=900 * MIB,
            hard_bytes=950 * MIB,
        ),
        pools=pools if pools is not None else {"fast": pool("fast", child()), "slow": pool("slow", child(21))},
        browsers=BrowserStatus(
            live=0, orphans=0, defunct=0, reaped=7, in_use=0, kept=0, leftovers=0, runaway=0, strangers=0,
            grid_ended=0,
        ),
        tasks=TaskStatus(reclaimed=0, parked=parked),
        governor=GovernorStatus(pss_bytes=0, cpu_seconds=1.0),
        recent=list(events),
    )  # fmt: skip


def with_browsers(document: Status, **changes: int) -> Status:
    """The same document with other counts of browsers."""
    return structs.replace(document, browsers=structs.replace(document.browsers, **changes))
