"""overhead_meters: not a benchmark; what processes hold and use, and how long a look at all takes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import read_settings
from recyclery.decide.policy import decide
from recyclery.observe.observer import Observer
from recyclery.observe.processes import Markers, read_proc_file, read_pss
from recyclery.observe.snapshot import PoolView
from recyclery.state.ledger import Ledger

TICK_GAP_SECONDS = 0.1
CALM_CORES = 0.05


@dataclass(frozen=True)
class Cost:
    """What supervision holds, by the role of its processes, and the share of a core it used."""

    pss_bytes: dict[str, int]
    private_bytes: int
    cpu_percent: dict[str, float]

    @property
    def total_pss_bytes(self) -> int:
        """Of all its processes."""
        return sum(self.pss_bytes.values())

    @property
    def total_cpu_percent(self) -> float:
        """Of all its processes; 100 is one core."""
        return sum(self.cpu_percent.values())


def measure_cost(first: int, helper: int, seconds: float) -> Cost:
    """Watch the process that is PID 1 and its helper for so long; memory is read at the end."""
    pids = {"PID 1": first, "helper": helper}
    before = {name: cpu_seconds(pid, with_children=pid == helper) for name, pid in pids.items()}
    began = time.monotonic()
    time.sleep(seconds)
    passed = time.monotonic() - began
    after = {name: cpu_seconds(pid, with_children=pid == helper) for name, pid in pids.items()}
    return Cost(
        pss_bytes={name: read_pss(pid) for name, pid in pids.items()},
        private_bytes=sum(read_private(pid) for pid in pids.values()),
        cpu_percent={name: (after[name] - before[name]) / passed * 100 for name in pids},
    )


def cpu_seconds(pid: int, with_children: bool) -> float:
    """Return what a process has used so far.

    By its CPU clock (clock_getcpuclockid(3)), for /proc tells whole hundredths. A helper's ended children are
    its own doing (memmon runs ps); those of PID 1 are the pools' and what they left.
    """
    used = time.clock_gettime((~pid << 3) | 2)
    if with_children:
        times = psutil.Process(pid).cpu_times()
        used += times.children_user + times.children_system
    return used


def read_private(pid: int) -> int:
    """Return the bytes that no other process shares: what would remain of PSS if all others were Python too."""
    rollup = read_proc_file(f"/proc/{pid}/smaps_rollup").splitlines()
    return 1024 * sum(int(line.split()[1]) for line in rollup if line.startswith(b"Private_"))


def wait_until_calm(pids: Iterable[int], most_seconds: float) -> float:
    """Wait until these processes together use little CPU; return the share of a core they use (1 is all)."""
    deadline = time.monotonic() + most_seconds
    used, at = total_cpu_seconds(pids), time.monotonic()
    while True:
        time.sleep(2)
        used_before, at_before = used, at
        used, at = total_cpu_seconds(pids), time.monotonic()
        cores = (used - used_before) / (at - at_before)
        if cores < CALM_CORES or at > deadline:
            return cores


def total_cpu_seconds(pids: Iterable[int]) -> float:
    """Return what the processes have used; one that has ended counts nothing."""
    total = 0.0
    for pid in pids:
        with suppress(OSError):
            total += cpu_seconds(pid, with_children=False)
    return total


def time_ticks(governor: int, main: int, runtime_dir: Path, ticks: int) -> tuple[list[float], int]:
    """Do what the governor does at a tick, in this process; return the sorted seconds and how many it watched.

    Observing and deciding only: it acts on nothing, and asks neither PID 1 nor the worker.
    """
    settings = read_settings(runtime_dir)
    observer = Observer(settings=settings, markers=Markers(read_run(governor)))
    programs = {pool.name: PoolView(pool.name, PoolState.RUNNING, main) for pool in settings.pools}
    state = Ledger(settings).state
    watched = 0
    taken = []
    for _ in range(ticks):
        began = time.perf_counter()
        snapshot = observer.observe(programs, {})
        decide(snapshot, state, settings)
        taken.append(time.perf_counter() - began)
        watched = sum(len(child.processes) - 1 for child in snapshot.children)
        # A governor looks once a second and finds its caches cold; so does this one, nearly.
        time.sleep(TICK_GAP_SECONDS)
    # The first look reads every environment, which no later one does.
    return sorted(taken[1:]), watched


def read_run(governor: int) -> str:
    """Return the name of the run, by which markers are told apart."""
    for variable in read_proc_file(f"/proc/{governor}/environ").split(b"\0"):
        if variable.startswith(b"RECYCLERY_RUN="):
            return variable.split(b"=", 1)[1].decode()
    return ""
