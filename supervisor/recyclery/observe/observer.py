"""Gathers one `Snapshot`: the only place where the readings come together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from recyclery.config.settings import Settings
from recyclery.observe.cgroup import find_memory_cgroup, read_container, read_machine, stated_budget
from recyclery.observe.ownership import Ownership, attribute
from recyclery.observe.processes import Markers, list_processes, with_memory
from recyclery.observe.reports import ChildState
from recyclery.observe.snapshot import Child, Container, Orphans, Owner, PoolView, Process, Snapshot
from recyclery_worker.link import now


@dataclass
class Observer:
    """Reads everything once a tick, and remembers only what makes the next reading cheaper."""

    settings: Settings
    markers: Markers
    sessions: Mapping[int, Owner] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._cgroup = find_memory_cgroup()
        self._supervisor = os.getppid()
        self._without_children = {pool.name for pool in self.settings.pools if not pool.forks}

    def observe(self, programs: Mapping[str, PoolView], states: Mapping[Owner, ChildState]) -> Snapshot:
        """Return what is now."""
        at = now()
        mains = {view.pid: name for name, view in programs.items() if view.pid is not None}
        processes = list_processes()
        markers = self.markers.read(processes, at)
        # Where tasks run in a worker's main process, that is the child: what it starts is the tasks'.
        alone = {pid for pid, name in mains.items() if name in self._without_children}
        markers |= {
            process.pid: Owner(mains[process.pid], process.pid, process.start_ticks)
            for process in processes
            if process.pid in alone
        }
        forking = {pid: name for pid, name in mains.items() if pid not in alone}
        ownership = attribute(processes, forking, markers, self.sessions)
        self.sessions = ownership.sessions
        children = tuple(
            read_child(owner, members, states.get(owner)) for owner, members in ownership.living.items()
        )
        return Snapshot(
            at=at,
            container=self._read_container(processes, children, mains),
            pools=tuple(programs.values()),
            children=children,
            orphans=tuple(Orphans(owner, members) for owner, members in ownership.dead.items()),
            defunct=count_defunct(processes, ownership, {*mains, self._supervisor}),
        )

    def _read_container(
        self, processes: list[Process], children: tuple[Child, ...], mains: Mapping[int, str]
    ) -> Container:
        stated = self.settings.memory.limit_bytes
        if self._cgroup is not None and self._cgroup.limit_bytes is not None:
            return read_container(self._cgroup, stated)
        if stated is None:
            return read_machine()
        ours = {*mains, self._supervisor, os.getpid()} - {child.owner.pid for child in children}
        supervision = sum(with_memory(process).anon_bytes for process in processes if process.pid in ours)
        return stated_budget(stated, supervision + sum(child.tree_bytes for child in children))


def read_child(owner: Owner, members: tuple[Process, ...], state: ChildState | None) -> Child:
    """Return a living child with the memory of all that is its."""
    child = Child(owner=owner, processes=tuple(with_memory(process) for process in members))
    if state is None:
        return child
    return replace(
        child,
        tasks_done=state.tasks_done,
        task_id=state.task_id,
        task_name=state.task_name,
        first_task_started=state.first_task_started,
        last_task_ended=state.last_task_ended,
    )


def count_defunct(processes: list[Process], ownership: Ownership, ours: set[int]) -> int:
    """Count processes that ended and that neither we nor our children have collected."""
    owned = {
        process.pid
        for group in (ownership.living, ownership.dead)
        for held in group.values()
        for process in held
    }
    return sum(process.is_defunct and (process.pid in owned or process.parent in ours) for process in processes)
