"""The records that the history is made of. Times are seconds since 1970, sizes are bytes.

`floor_bytes` is the unreclaimable memory of the container.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from recyclery.observe.snapshot import Child, Owner


class Parts(NamedTuple):
    """The memory of a child's process tree by place, the sum of which is its total.

    `python` is the child's own anonymous memory, `browser` all of its browsers, `shared` the shared memory that
    the child has mapped, `other` any other programs that it started.
    """

    python: int = 0
    browser: int = 0
    shared: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """The sum."""
        return sum(self)


PLACES = Parts._fields
# What hardly changes is recorded so often.
REPEAT_SECONDS = 30.0


class ContainerSample(NamedTuple):
    """The container at one moment."""

    at: float
    limit_bytes: int
    usage_bytes: int
    floor_bytes: int
    shm_files_bytes: int
    oom_kills: int


class PoolSample(NamedTuple):
    """One pool at one moment: all children's trees, its main process, and the budget of each child."""

    at: float
    pool: str
    tree_bytes: int
    main_bytes: int
    children: int
    budget_bytes: int
    max_tasks_per_child: int | None


@dataclass(frozen=True, slots=True)
class ChildSample:
    """One child at one moment."""

    at: float
    owner: Owner
    parts: Parts
    task: str | None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of a task, or several consecutive short ones: `tasks` counts them by name.

    `before` and `after` are idle memory, None if it was not measured. `place` is how many tasks the child had
    run before. `outcome` is done, died, oom (died as the kernel's OOM killer struck) or preempted.
    """

    owner: Owner
    tasks: Mapping[str, int]
    place: int
    ended: float
    seconds: float
    before: Parts | None
    peak: Parts
    after: Parts | None
    browser_seen: bool
    """Whether browsers and other programs were measured before and after."""
    outcome: str


class ActionRecord(NamedTuple):
    """One action of the governor, or an OOM kill, with its reason and outcome."""

    at: float
    kind: str
    pool: str
    owner: Owner | None
    task: str | None
    reason: str
    line: str
    done: bool
    floor_bytes: int
    limit_bytes: int


Record = ContainerSample | PoolSample | ChildSample | RunRecord | ActionRecord


def parts_of(child: Child, begun_before: float | None = None) -> Parts:
    """Return the memory of a child's tree; with `begun_before`, without processes that started later."""
    python = browser = other = 0
    shared = child.file_bytes
    for process in child.processes:
        if process.pid == child.owner.pid:
            python += process.anon_bytes - process.shmem_bytes
            shared += process.shmem_bytes
        elif begun_before is not None and process.started > begun_before:
            continue
        elif process.is_browser:
            browser += process.anon_bytes
        else:
            other += process.anon_bytes
    return Parts(python, browser, shared, other)
