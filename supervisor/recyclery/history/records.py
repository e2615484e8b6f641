"""What the history is made of. Times are seconds since 1970, sizes are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from recyclery.observe.snapshot import Child, Owner

PLACES = ("python", "browser", "shared", "other")


class Parts(NamedTuple):
    """What a child's tree holds, by place.

    `python` is the child's own anonymous memory, `browser` all of its browsers, `shared` what the child has
    mapped of shared memory, `other` what further programs hold that it started.
    """

    python: int = 0
    browser: int = 0
    shared: int = 0
    other: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


@dataclass(frozen=True, slots=True)
class ContainerSample:
    """The container at one moment."""

    at: float
    limit_bytes: int
    usage_bytes: int
    floor_bytes: int
    shm_files_bytes: int
    oom_kills: int


@dataclass(frozen=True, slots=True)
class PoolSample:
    """One pool at one moment: its children's trees together, its main process, and what each child may hold."""

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
    """One run of a task, or several short ones on end: how many of each name.

    `before` and `after` are idle memory, None where nobody saw. `place` counts the child's tasks before it.
    `outcome` is done, died, oom (died as the kernel killed) or preempted.
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
    """Whether what browsers and other programs held was looked at on either side."""
    outcome: str


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """One thing that was done, or that the kernel did, with its reason, figures and what came of it."""

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
    """Return what a child's tree holds; of what it started only what had begun by then, where one says so."""
    python = browser = shared = other = 0
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
