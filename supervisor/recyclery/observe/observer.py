"""Builds one `Snapshot` from all readings, and wakes the loop when a process exits before the next one."""

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from itertools import chain

import psutil

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Settings
from recyclery.observe.browser_files import BrowserFiles
from recyclery.observe.cgroup import CpuMeter, find_memory_cgroup, read_container, read_machine, stated_budget
from recyclery.observe.held_files import HeldFiles
from recyclery.observe.ownership import assign_owners
from recyclery.observe.processes import Markers, OpenFiles, read_processes, with_memory
from recyclery.observe.shared_pages import DECIDING_SHARE, TELLING_SHARE, SharedPages
from recyclery.observe.snapshot import (
    Child,
    ChildState,
    ContainerMemory,
    OpenSessions,
    Orphans,
    Owner,
    PoolView,
    Process,
    ProcessKey,
    Snapshot,
)
from recyclery.observe.supplies import Supplies, list_folders
from recyclery.observe.task_memory import TaskMemory
from recyclery.observe.workers import choose_active_workers
from recyclery_worker.link import now

# The exits of further processes are observed at the next tick.
MOST_WATCHED = 500
NOTHING_REPORTED = ChildState()
REPORTED_FIELDS = tuple(each.name for each in fields(ChildState) if each.name != "heard")


@dataclass
class Observer:
    """Reads everything once a tick."""

    settings: Settings
    markers: Markers
    sessions: Mapping[int, Owner] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._cgroup = find_memory_cgroup()
        self._supervisor = os.getppid()
        self._cpu = CpuMeter()
        self._files = OpenFiles()
        self._in_sessions = SharedPages(DECIDING_SHARE)
        self._in_all = SharedPages(TELLING_SHARE)
        self._held_files = HeldFiles()
        self._task_memory = TaskMemory()
        self._supplies = Supplies(list_folders(self.settings.runtime_dir, self.settings.state_dir))
        self._main_starts: dict[tuple[str, str], tuple[int, int]] = {}
        self._owners: dict[ProcessKey, Owner] = {}
        # Orphaned processes are adopted by PID 1, or by the supervisor as a subreaper.
        self.browser_files = BrowserFiles(inits={1, self._supervisor})

    def observe(
        self, programs: Mapping[str, PoolView], states: Mapping[Owner, ChildState], late_seconds: float = 0.0
    ) -> Snapshot:
        """Return a snapshot; `programs` are the workers by slot, `late_seconds` the delay of this tick."""
        at = now()
        workers = {view.pid: view for view in programs.values() if view.pid is not None}
        processes = read_processes(self._files.read)
        mains = {process.pid: process for process in processes if process.pid in workers}
        # A process keeps its owner, even after the leader of its session has exited.
        markers = {each.pid: self._owners[each.key] for each in processes if each.key in self._owners}
        markers |= self.markers.read(processes, at)
        # Where tasks run in a worker's main process, that counts as the child.
        markers |= {
            pid: Owner(workers[pid].name, pid, main.start_ticks)
            for pid, main in mains.items()
            if not workers[pid].forks
        }
        forking_views = [(pid, view) for pid, view in workers.items() if view.forks]
        forking = {pid: view.name for pid, view in forking_views}
        ownership = assign_owners(processes, forking, markers, self.sessions)
        self.sessions = ownership.sessions
        owners = ownership.owners
        self._owners = {process.key: owners[process.pid] for process in processes if process.pid in owners}
        measured = {owner: self._with_memory(members) for owner, members in ownership.living.items()}
        roots = {*workers, self._supervisor}
        ours = [process for process in processes if process.pid in roots or process.pid == os.getpid()]
        supervision = self._with_memory(ours)
        self._files.turn()
        # Children share what their worker had loaded before it forked them. A main process may be a child too.
        each = {process.pid: process for process in chain(supervision, *measured.values())}
        once = {
            process.pid: process.anon_bytes for process in self._in_all.count_once(tuple(each.values()), at)
        }
        self._in_all.turn()
        living = tuple(
            make_child(
                owner,
                self._in_sessions.count_once(members, at),
                once,
                workers,
                states.get(owner, NOTHING_REPORTED),
            )
            for owner, members in measured.items()
        )
        self._in_sessions.turn()
        children = self._task_memory.measure(living, self.settings.pools, at)
        held = {process.pid: process.anon_bytes for process in supervision}
        views = [self._with_main(view, mains.get(view.pid or 0), held) for view in programs.values()]
        active, others = choose_active_workers(views)
        snapshot = Snapshot(
            at=at,
            container=self._read_container(held, children),
            pools=active,
            others=others,
            empty_slots=tuple(view for view in views if view not in active and view not in others),
            children=children,
            orphans=tuple(Orphans(owner, members) for owner, members in ownership.dead.items()),
            defunct=sum(each.is_defunct and (each.pid in owners or each.parent in roots) for each in processes),
            foreign_browsers=ownership.foreign_browsers,
            leftover_files=self.browser_files.update(processes, owners, at),
            orphaned_browsers=self.browser_files.orphaned_browsers,
            browsers_starting=self.browser_files.browsers_starting,
            open_sessions=find_open_sessions(processes, states),
            shm_files_bytes=read_shm_files(),
            supplies=self._supplies.read(children, ((view.slot, pid) for pid, view in forking_views), at),
            cpu_share=self._cpu.read(),
            late_seconds=late_seconds,
        )
        return self._with_files(snapshot, forking)

    def read_floor(self) -> int | None:
        """Return the unreclaimable memory now; None where no cgroup is limited."""
        if self._cgroup is None or self._cgroup.limit_bytes is None:
            return None
        return read_container(self._cgroup, self.settings.memory.limit_bytes).floor_bytes

    def _with_memory(self, processes: Iterable[Process]) -> tuple[Process, ...]:
        return tuple(with_memory(process, self._files.read) for process in processes)

    def _with_files(self, snapshot: Snapshot, mains: Iterable[int]) -> Snapshot:
        """Add the files that children hold, where memory belongs to no process."""
        processes = {child.owner: child.processes for child in snapshot.children}
        held = self._held_files.update(processes, mains, snapshot.unattributed_bytes, snapshot.at)
        if not held:
            return snapshot
        children = (replace(child, file_bytes=held.get(child.owner, 0)) for child in snapshot.children)
        return replace(snapshot, children=tuple(children))

    def _with_main(self, view: PoolView, main: Process | None, supervision: Mapping[int, int]) -> PoolView:
        """Add the main process, its memory now, and that when it was first observed running."""
        if view.pid is None:
            return view
        held = supervision.get(view.pid, 0)
        place = view.name, view.slot
        pid, start_bytes = self._main_starts.get(place, (0, 0))
        if pid != view.pid:
            start_bytes = held
            if view.state is PoolState.RUNNING:
                self._main_starts[place] = view.pid, held
        return replace(view, main=main, main_bytes=held, main_start_bytes=start_bytes)

    def _read_container(self, supervision: Mapping[int, int], children: tuple[Child, ...]) -> ContainerMemory:
        stated = self.settings.memory.limit_bytes
        if self._cgroup is not None and self._cgroup.limit_bytes is not None:
            return read_container(self._cgroup, stated)
        if stated is None:
            return read_machine()
        apart = sum(held for pid, held in supervision.items() if pid not in {c.owner.pid for c in children})
        return stated_budget(stated, apart + sum(child.tree_bytes for child in children))


def make_child(
    owner: Owner,
    processes: tuple[Process, ...],
    once: Mapping[int, int],
    workers: Mapping[int, PoolView],
    state: ChildState,
) -> Child:
    """Return a living child with what it reports; `workers` are by the main processes' pids.

    `once` has the memory of all processes, with pages that several children share counted with one of them.
    """
    parent = next((process.parent for process in processes if process.pid == owner.pid), 0)
    worker = workers.get(owner.pid) or workers.get(parent)
    reported = {name: getattr(state, name) for name in REPORTED_FIELDS}
    shared = sum(process.anon_bytes - once[process.pid] for process in processes)
    slot = worker.slot if worker is not None else ""
    return Child(owner, processes, slot, shared_bytes=max(0, shared), **reported)


def find_open_sessions(
    processes: Iterable[Process], states: Mapping[Owner, ChildState]
) -> tuple[OpenSessions, ...]:
    """Return the Grid sessions of children that have no running process."""
    if not any(state.remote for state in states.values()):
        return ()
    running = {process.key for process in processes if not process.is_defunct}
    return tuple(
        OpenSessions(owner, state.remote)
        for owner, state in states.items()
        if state.remote and ProcessKey(owner.pid, owner.start_ticks) not in running
    )


def read_shm_files() -> int:
    """Return the size of the files in /dev/shm; 0 where there is none."""
    try:
        return psutil.disk_usage("/dev/shm").used  # noqa: S108  # only read
    except OSError:
        return 0


class ExitWatcher:
    """Holds a pidfd (pidfd_open(2)) for each watched process; without pidfds exits wait for the next tick."""

    def __init__(self, on_exit: Callable[[], None]) -> None:
        self._on_exit = on_exit
        self._files: dict[ProcessKey, int] = {}

    def watch(self, wanted: Iterable[ProcessKey]) -> None:
        """Watch these processes and no others."""
        loop, keys = asyncio.get_running_loop(), set(wanted)
        for key in self._files.keys() - keys:
            file = self._files.pop(key)
            loop.remove_reader(file)
            os.close(file)
        for key in keys - self._files.keys():
            if len(self._files) < MOST_WATCHED:
                with suppress(OSError):
                    self._files[key] = os.pidfd_open(key.pid)
                    loop.add_reader(self._files[key], self._ended, key)

    def close(self) -> None:
        """Stop watching."""
        self.watch(())

    def _ended(self, key: ProcessKey) -> None:
        # A pidfd stays readable after the exit.
        asyncio.get_running_loop().remove_reader(self._files[key])
        self._on_exit()


def find_watched(snapshot: Snapshot) -> Iterator[ProcessKey]:
    """Yield the processes whose exit leaves something behind: children, drivers and topmost browsers."""
    for child in snapshot.children:
        drivers = {process.pid for process in child.processes if process.is_driver}
        browsers = {process.pid for process in child.processes if process.is_browser}
        for process in child.processes:
            top = process.parent in drivers or process.parent not in browsers
            if process.pid == child.owner.pid or (process.is_browser and top and not process.is_defunct):
                yield process.key
