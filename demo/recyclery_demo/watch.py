"""What is seen of a storm from outside its cage: memory, tasks, browsers, and the supervisor's own status."""

import contextlib
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from recyclery.observe.processes import read_proc_file, with_memory
from recyclery.observe.snapshot import Process
from recyclery.sandbox.cage import Cage, CannotCageError
from recyclery.sandbox.guard import descendants
from recyclery_demo.cgroups import SandboxCgroup, find_own_home

POLL_SECONDS = 2.0
ANSWER_SECONDS = 10.0
NOT_BROWSERS = ("chromedriver", "chrome_crashpad")


class CgroupMeter:
    """The figures of a cgroup."""

    def __init__(self, cgroup: SandboxCgroup) -> None:
        self.kind = cgroup.kind
        self._cgroup = cgroup
        self._highest_seen_bytes = 0

    def usage_bytes(self) -> int:
        """Return what is charged, page cache included."""
        usage_bytes = self._cgroup.usage_bytes()
        self._highest_seen_bytes = max(self._highest_seen_bytes, usage_bytes)
        return usage_bytes

    def floor_bytes(self) -> int:
        """Return what no reclaim can free."""
        return self._cgroup.floor_bytes()

    def peak_bytes(self) -> int:
        """Return the kernel's peak, or the highest we saw where it keeps none."""
        return self._cgroup.peak_bytes() or self._highest_seen_bytes

    def oom_kills(self) -> int:
        """Return the kernel's count."""
        return self._cgroup.oom_kills()

    def processes_left(self) -> int:
        """Return how many processes are in the cgroup."""
        return len(self._cgroup.processes())


class BudgetMeter:
    """A sum over the processes below a guard; the OOM kills are those of the cgroup around the demo."""

    kind = "budget"

    def __init__(self, cage: Cage) -> None:
        self._cage = cage
        self._highest_seen_bytes = 0
        self._surrounding: SandboxCgroup | None = None
        with contextlib.suppress(CannotCageError):
            home = find_own_home()
            self._surrounding = SandboxCgroup(home.path, home.version)
        self._kills_before = self._count_kills()

    def usage_bytes(self) -> int:
        """Return the anonymous and shared memory of all processes."""
        usage_bytes = sum(with_memory(process).anon_bytes for process in descendants(self._cage.guard_pid))
        self._highest_seen_bytes = max(self._highest_seen_bytes, usage_bytes)
        return usage_bytes

    def floor_bytes(self) -> int:
        """Return the usage: none of what is summed can be reclaimed."""
        return self.usage_bytes()

    def peak_bytes(self) -> int:
        """Return the highest sum seen."""
        return self._highest_seen_bytes

    def oom_kills(self) -> int:
        """Return the kills around us since the start, 0 where they cannot be read."""
        return self._count_kills() - self._kills_before

    def processes_left(self) -> int:
        """Return how many processes are below the guard, which adopts every orphan."""
        return sum(not process.is_defunct for process in descendants(self._cage.guard_pid))

    def _count_kills(self) -> int:
        if self._surrounding is None:
            return 0
        try:
            return self._surrounding.oom_kills()
        except OSError:
            return 0


Meter: TypeAlias = CgroupMeter | BudgetMeter


@dataclass(frozen=True)
class SupervisorStatus:
    """The part of the supervisor's status that the demo shows."""

    recycles: Mapping[str, int] = field(default_factory=dict)
    reaped: int = 0


def parse_status(document: Mapping[str, Any]) -> SupervisorStatus:
    """Add up the recycles of all pools by reason."""
    recycles: Counter[str] = Counter()
    for pool in document.get("pools", {}).values():
        recycles.update(pool.get("recycles", {}))
    reaped = document.get("browsers", {}).get("reaped", 0)
    return SupervisorStatus({reason: count for reason, count in recycles.items() if count}, int(reaped))


class StatusPoll:
    """The latest status; a supervisor that does not answer leaves the one before it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.latest = SupervisorStatus()
        self._environment = dict(environment)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="status-poll", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask one last time and no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
            self.ask()

    def ask(self) -> None:
        """Ask once; failing to is no failure of the storm."""
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError, AttributeError, TypeError):
            answer = subprocess.run(
                [sys.executable, "-m", "recyclery", "status", "--json"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=ANSWER_SECONDS,
                check=True,
                start_new_session=True,
            )
            self.latest = parse_status(json.loads(answer.stdout))

    def _poll(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self.ask()


@dataclass(frozen=True)
class Moment:
    """What a storm looked like at one moment."""

    elapsed_seconds: float
    done: int
    failed: int
    pinged: int
    fast_p95_seconds: float | None
    usage_bytes: int
    floor_bytes: int
    oom_kills: int
    browsers: int
    defunct: int
    reaped: int
    recycles: Mapping[str, int]


def count_processes(cage: Cage) -> tuple[int, int]:
    """Return the running browsers and the defunct processes in the cage."""
    below = descendants(cage.guard_pid)
    return sum(is_browser(process) for process in below), sum(process.is_defunct for process in below)


def is_browser(process: Process) -> bool:
    """Whether this is the main process of a Chrome: its helpers all carry a --type."""
    if process.is_defunct or not process.name.startswith("chrom") or process.name in NOT_BROWSERS:
        return False
    arguments = read_proc_file(f"/proc/{process.pid}/cmdline")
    return bool(arguments) and b"--type=" not in arguments
