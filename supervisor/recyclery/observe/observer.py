"""Gathers one `Snapshot`: the only place where the readings come together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Settings
from recyclery.observe.active_worker import choose_active_workers
from recyclery.observe.browser_files import BrowserFiles
from recyclery.observe.cgroup import CpuMeter, find_memory_cgroup, read_container, read_machine, stated_budget
from recyclery.observe.child_reports import ChildState
from recyclery.observe.ownership import assign_owners
from recyclery.observe.processes import Markers, OpenFiles, list_processes, with_memory
from recyclery.observe.snapshot import (
    Child,
    Container,
    OpenSessions,
    Orphans,
    Owner,
    PoolView,
    Process,
    ProcessKey,
    Snapshot,
)
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
        self._cpu = CpuMeter()
        self._files = OpenFiles()
        self._main_starts: dict[tuple[str, str], tuple[int, int]] = {}
        self._owners: dict[ProcessKey, Owner] = {}
        # What loses its parent is handed to PID 1, or to the supervisor where it is none.
        self.browser_files = BrowserFiles(inits={1, self._supervisor})

    def observe(
        self, programs: Mapping[str, PoolView], states: Mapping[Owner, ChildState], late_seconds: float = 0.0
    ) -> Snapshot:
        """Return what is now, with `programs` the workers by slot; this look comes `late_seconds` too late."""
        at = now()
        mains = {view.pid: view.name for view in programs.values() if view.pid is not None}
        slots = {view.pid: view.slot for view in programs.values() if view.pid is not None}
        processes = list_processes(self._files.read)
        # Whoever had an owner keeps it, though nothing but the past tells: its session's leader may be gone.
        markers = {
            process.pid: self._owners[process.key] for process in processes if process.key in self._owners
        } | self.markers.read(processes, at)
        # Where tasks run in a worker's main process, that is the child: what it starts is the tasks'.
        alone = {view.pid for view in programs.values() if view.pid is not None and not view.forks}
        markers |= {
            process.pid: Owner(mains[process.pid], process.pid, process.start_ticks)
            for process in processes
            if process.pid in alone
        }
        forking = {pid: name for pid, name in mains.items() if pid not in alone}
        ownership = assign_owners(processes, forking, markers, self.sessions)
        self.sessions = ownership.sessions
        owners = ownership.owners
        self._owners = {process.key: owners[process.pid] for process in processes if process.pid in owners}
        children = tuple(
            make_child(owner, self._with_memory(members), find_slot(owner, members, slots), states.get(owner))
            for owner, members in ownership.living.items()
        )
        ours = {*mains, self._supervisor, os.getpid()}
        supervision = {
            process.pid: process.anon_bytes
            for process in self._with_memory(process for process in processes if process.pid in ours)
        }
        main_processes = {process.pid: process for process in processes if process.pid in mains}
        self._files.turn()
        views = [
            replace(self._with_main(view, supervision), main=main_processes.get(view.pid or 0))
            for view in programs.values()
        ]
        serving, others = choose_active_workers(views)
        return Snapshot(
            at=at,
            container=self._read_container(supervision, children),
            pools=serving,
            others=others,
            empty_slots=tuple(view for view in views if view not in serving and view not in others),
            children=children,
            orphans=tuple(Orphans(owner, members) for owner, members in ownership.dead.items()),
            defunct=count_defunct(processes, owners, {*mains, self._supervisor}),
            foreign_browsers=ownership.foreign_browsers,
            leftover_files=self.browser_files.look(processes, owners, at),
            orphaned_browsers=self.browser_files.orphaned_browsers,
            browsers_starting=self.browser_files.browsers_starting,
            open_sessions=find_open_sessions(processes, states),
            shm_files_bytes=read_shm_files(),
            cpu_share=self._cpu.read(),
            late_seconds=late_seconds,
        )

    def read_floor(self) -> int | None:
        """Return what cannot be reclaimed right now; None where only a sum over processes would tell."""
        if self._cgroup is None or self._cgroup.limit_bytes is None:
            return None
        return read_container(self._cgroup, self.settings.memory.limit_bytes).floor_bytes

    def _with_memory(self, processes: Iterable[Process]) -> tuple[Process, ...]:
        return tuple(with_memory(process, self._files.read) for process in processes)

    def _with_main(self, view: PoolView, supervision: Mapping[int, int]) -> PoolView:
        """Add what the main process holds now, and what it held when first seen running."""
        if view.pid is None:
            return view
        held = supervision.get(view.pid, 0)
        place = view.name, view.slot
        if view.state is PoolState.RUNNING:
            kept = self._main_starts.get(place)
            if kept is None or kept[0] != view.pid:
                self._main_starts[place] = view.pid, held
        pid, started_with = self._main_starts.get(place, (view.pid, held))
        return replace(view, main_bytes=held, main_start_bytes=started_with if pid == view.pid else held)

    def _read_container(self, supervision: Mapping[int, int], children: tuple[Child, ...]) -> Container:
        stated = self.settings.memory.limit_bytes
        if self._cgroup is not None and self._cgroup.limit_bytes is not None:
            return read_container(self._cgroup, stated)
        if stated is None:
            return read_machine()
        apart = sum(held for pid, held in supervision.items() if pid not in {c.owner.pid for c in children})
        return stated_budget(stated, apart + sum(child.tree_bytes for child in children))


def find_slot(owner: Owner, members: Iterable[Process], slots: Mapping[int, str]) -> str:
    """Return the slot of a child's worker by the main processes' slots: its parent, or it is one itself."""
    parent = next((process.parent for process in members if process.pid == owner.pid), 0)
    return slots.get(owner.pid) or slots.get(parent, "")


def make_child(owner: Owner, processes: tuple[Process, ...], slot: str, state: ChildState | None) -> Child:
    """Return a living child as its processes and its own word describe it."""
    if state is None:
        return Child(owner, processes, slot=slot)
    return Child(
        owner=owner,
        processes=processes,
        slot=slot,
        tasks_done=state.tasks_done,
        task_id=state.task_id,
        task_name=state.task_name,
        task_started=state.task_started,
        first_task_started=state.first_task_started,
        last_task_ended=state.last_task_ended,
        idle_bytes=state.idle_bytes,
        kept=state.kept,
        remote=state.remote,
        tracing=state.tracing,
    )


def count_defunct(processes: list[Process], owned: Mapping[int, Owner], ours: set[int]) -> int:
    """Count processes that ended and that neither we nor our children have collected."""
    return sum(process.is_defunct and (process.pid in owned or process.parent in ours) for process in processes)


def find_open_sessions(
    processes: Iterable[Process], states: Mapping[Owner, ChildState]
) -> tuple[OpenSessions, ...]:
    """Return what dead children had open on the Grid; one that is only to be seen yet is not dead."""
    if not any(state.remote for state in states.values()):
        return ()
    running = {process.key for process in processes if not process.is_defunct}
    return tuple(
        OpenSessions(owner, state.remote)
        for owner, state in states.items()
        if state.remote and ProcessKey(owner.pid, owner.start_ticks) not in running
    )


def read_shm_files() -> int:
    """Return how many bytes the files in /dev/shm take; 0 where there is none."""
    try:
        found = os.statvfs("/dev/shm")  # noqa: S108  # looked at, not written to
    except OSError:
        return 0
    return (found.f_blocks - found.f_bfree) * found.f_frsize
