"""A container of a run under faults: the supervisor as PID 1 of a namespace, in a memory cgroup of its own."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recyclery_demo.cage import CgroupCage
from recyclery_demo.cgroups import SandboxCgroup, find_own_home
from support.stepped_clock import SteppedClock

LIMIT_BYTES = 1 << 30
GRACE_SECONDS = 10
# The guide's pools. Here a task is killed by chance, and so often: none is to be set aside for it.
CONFIGURATION = """
[pools.fast]
queues = ["high", "default"]
concurrency = 3
max_tasks_per_child = 100
max_task_deaths = 1000

[pools.slow]
queues = ["low"]
concurrency = 1
max_tasks_per_child = 10
max_task_deaths = 1000
"""
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Process:
    """A process of a container, as it is seen from outside; `inner` is its pid there."""

    pid: int
    parent: int
    inner: int
    state: str
    name: str
    words: tuple[str, ...]

    @property
    def role(self) -> str:
        """What it is: worker, governor, chromedriver, browser, or nothing of interest."""
        if "recyclery.governor" in self.words:
            return "governor"
        if self.name == "chromedriver":
            return "chromedriver"
        if self.name.startswith("chrom") and not any(word.startswith("--type=") for word in self.words):
            return "browser"
        if "worker" in self.words and "-Q" in self.words:
            return "worker"
        return ""


class Box:
    """One container, from its start to its end."""

    def __init__(self, name: str, folder: Path, logs: Path, redis_url: str) -> None:
        self.name = name
        self.runtime_dir = folder / name
        self.known_kills = 0
        self._log = logs / f"{name}.log"
        self._read = 0
        (self.runtime_dir / "tmp").mkdir(parents=True)
        self.clock = SteppedClock(self.runtime_dir)
        self.clock_was_set = False
        self.recent_lines: deque[str] = deque(maxlen=80)
        self.mains: dict[str, int] = {}
        """The main process of each slot, as PID 1 has told of it."""
        self._cage = CgroupCage(
            [
                *("nice", "-n", "5", "unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name),
                *(sys.executable, "-m", "recyclery", "run", "--config", str(self._configure())),
            ],
            environment={
                **environment_of(name, self.runtime_dir, redis_url, logs / "runs"),
                **self.clock.for_python(str(HERE), os.environ.get("PYTHONPATH", "")),
            },
            folder=HERE,
            log=self._log,
            cgroup=SandboxCgroup.create(find_own_home(), f"chaos-{os.getpid()}-{name}", LIMIT_BYTES),
        )
        self._namespace = namespace_of(self._cage.pid)

    def _configure(self) -> Path:
        path = self.runtime_dir / "recyclery.toml"
        path.write_text(CONFIGURATION)
        return path

    @property
    def pid(self) -> int:
        """PID 1 of the container, as it is seen from outside."""
        return self._cage.pid

    def processes(self) -> list[Process]:
        """Return all processes in it."""
        return [process for process in list_processes() if namespace_of(process.pid) == self._namespace]

    def of_role(self, role: str) -> list[Process]:
        """Return the living processes of a role."""
        processes = [one for one in self.processes() if one.state not in "ZX"]
        if role not in ("main", "child"):
            return [one for one in processes if one.role == role]
        workers = [one for one in processes if one.role == "worker"]
        mains = {one.pid for one in workers if one.parent == self.pid}
        return [one for one in workers if (one.parent if role == "child" else one.pid) in mains]

    def below(self, pid: int) -> list[Process]:
        """Return a process and all that descend from it."""
        processes = self.processes()
        family = {pid}
        while more := {one.pid for one in processes if one.parent in family} - family:
            family |= more
        return [one for one in processes if one.pid in family]

    def new_lines(self) -> list[str]:
        """Return what it has printed since it was last asked."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            *lines, _ = log.read().split(b"\n")
        self._read += sum(len(line) + 1 for line in lines)
        return [line.decode(errors="replace") for line in lines]

    def terminate(self) -> None:
        """Ask it to stop."""
        self._cage.terminate()

    def kill(self) -> None:
        """Kill PID 1, and with it all others; return when they are dead."""
        self._cage.kill()
        self._cage.wait(30)
        self._cage.close()

    def wait(self, seconds: float) -> int | None:
        """Return its exit code, None while it runs."""
        code = self._cage.wait(seconds)
        if code is not None:
            self._cage.close()
        return code

    def oom_kills(self) -> int:
        """Return how many of its processes the kernel has killed for want of memory."""
        assert self._cage.cgroup is not None
        try:
            return self._cage.cgroup.oom_kills()
        except FileNotFoundError:
            # It has ended.
            return self.known_kills

    def close(self) -> None:
        """End it, however it is."""
        self._cage.close()


def environment_of(name: str, runtime_dir: Path, redis_url: str, runs: Path) -> dict[str, str]:
    """Return a container's environment: none of our variables but these."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "RECYCLERY_"))
    }
    return {
        **clean,
        "CELERY_APP": "chaos_app",
        "CELERY_LOG_LEVEL": "info",
        "CHAOS_BOX": name,
        "CHAOS_RUNS": str(runs),
        "REDIS_URL": redis_url,
        "RECYCLERY_GRACE": str(GRACE_SECONDS),
        # Here workers die more often than any operator would put up with.
        "RECYCLERY_MAX_DEATHS": "100",
        "RECYCLERY_RUNTIME_DIR": str(runtime_dir),
        "RECYCLERY_STATE_DIR": str(runtime_dir / "state"),
        "TMPDIR": str(runtime_dir / "tmp"),
    }


def list_processes() -> Iterator[Process]:
    """Yield the processes of this machine; those that end meanwhile are left out."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = dict(
                line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line
            )
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        yield Process(
            pid=int(folder.name),
            parent=int(status["PPid"]),
            inner=int(status["NSpid"].split()[-1]),
            state=status["State"][0],
            name=status["Name"],
            words=tuple(word.decode(errors="replace") for word in words if word),
        )


def namespace_of(pid: int) -> str:
    """Return the PID namespace of a process; nothing where it has ended."""
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""
