"""A real supervisor over one pool, for one level, in a temporary folder: both are removed afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
import psutil

from recyclery.config import secrets
from recyclery.config.paths import history_file
from recyclery.control.client import Declined, NoSupervisor, ask_governor
from recyclery.control.status_schema import Status
from recyclery.history.reader import NoHistory, StoredRun, open_history
from recyclery.observe.cgroup import allowed_cores
from recyclery.observe.processes import read_kib, read_proc_file
from recyclery.sandbox.cage import Cage, last_lines
from recyclery.tune.progress import Progress
from recyclery.tune.sender import TaskSender
from recyclery.tune.spec import Level, Spec, TuningFailed
from recyclery.tune.window import Observation, StatusSample
from recyclery_worker.link import now
from recyclery_worker.tuning.messages import MARKS_VARIABLE, SPACE_VARIABLE, Space, Sweep

# Not in $TMPDIR: a socket's whole path has only 107 bytes.
PARENT = Path("/tmp")  # noqa: S108  # each folder is made for its owner alone
FOLDER_PREFIX = "rt-"
LOG, EVENTS = "supervisor.log", "events"
# A younger folder may not be locked yet.
UNLOCKED_FOLDER_SECONDS = 60.0
SERVING_SECONDS = 180.0
TURN_SECONDS = 0.25
SAMPLING_SECONDS = 0.5
# Reading CPU times goes through all processes of the machine.
CPU_SECONDS = 2.0
# The memory of a pool that has just started still moves for a moment.
SETTLE_SAMPLES = 3
# Beyond the time that the supervisor itself gives to running tasks.
STOP_MARGIN_SECONDS = 30.0
# More than enough of a level's newest runs to know how large its children grew.
MOST_RUNS = 100_000
# The observer's name for a limit that no kernel enforces: only the supervisor's own processes count then.
STATED = "a stated budget"


@contextmanager
def temporary_folder(parent: Path = PARENT) -> Iterator[Path]:
    """Yield a folder that is removed afterwards; remove those of the user's tunings that were killed."""
    remove_abandoned(parent)
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent))
    held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders whose tuning is gone: the kernel released its lock."""
    for folder in parent.glob(f"{FOLDER_PREFIX}*"):
        try:
            held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            found = os.fstat(held)
            if found.st_uid == os.geteuid() and time.time() - found.st_mtime > UNLOCKED_FOLDER_SECONDS:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(held)


@dataclass(frozen=True, slots=True)
class RunContext:
    """What all levels are measured with."""

    spec: Spec
    grace_seconds: float
    space: Space
    sender: TaskSender
    folder: Path
    """Short, for sockets live in it."""
    progress: Progress


@contextmanager
def running_testbed(context: RunContext, level: Level) -> Iterator[Testbed]:
    """Start a supervisor at a level, yield it once it takes tasks, and remove all of it."""
    folder = context.folder / str(sum(1 for _ in context.folder.iterdir()))
    folder.mkdir()
    events = folder / EVENTS
    events.touch(mode=0o600)
    with events.open("rb") as file, start_supervisor(context, level, folder) as cage:
        testbed = Testbed(context, folder, cage, file)
        testbed.wait_until_serving(level)
        yield testbed
    context.sender.ask(Sweep())


def start_supervisor(context: RunContext, level: Level, folder: Path) -> Cage:
    """Start a supervisor that runs one pool at one level, apart from all in service; raises CannotCageError."""
    spec = context.spec
    command = [sys.executable, "-m", "recyclery", "run", "--app", spec.app]
    command += ["--config", spec.config] if spec.config is not None else []
    command += ["--memory-limit", str(spec.memory_bytes)] if spec.memory_bytes is not None else []
    environment = {
        # Another supervisor serves the port and uses the secrets.
        **{name: value for name, value in os.environ.items() if name not in {"PORT", *secrets.ALL}},
        "CELERY_WORKER_NAME": spec.pool,
        "CELERY_QUEUES": context.space.queue,
        "CELERY_CONCURRENCY": str(level.concurrency),
        "CELERY_MAX_TASKS_PER_CHILD": str(level.max_tasks_per_child),
        "RECYCLERY_RUNTIME_DIR": str(folder / "run"),
        "RECYCLERY_STATE_DIR": str(folder / "state"),
        "RECYCLERY_HTTP": "off",
        SPACE_VARIABLE: context.space.name,
        MARKS_VARIABLE: str(folder / EVENTS),
    }
    # The guard of the cage kills all of it if the tuning dies.
    return Cage(command, environment=environment, folder=Path.cwd(), log=folder / LOG)


class Testbed:
    """A supervisor at one level, and what has been seen of it."""

    seen: Observation

    def __init__(self, context: RunContext, folder: Path, cage: Cage, file: BinaryIO) -> None:
        self._context = context
        self._folder = folder
        self._cage = cage
        self._file = file
        self._line = b""
        self.events_path = str(folder / EVENTS)
        """The file that tasks write their start and end to."""

    def wait_until_serving(self, level: Level) -> None:
        """Return once the worker takes tasks, with all its children up; raises TuningFailed."""
        deadline = time.monotonic() + SERVING_SECONDS
        while (base := self._sample()) is None or not base.is_serving:
            if time.monotonic() > deadline:
                log = last_lines(self._folder / LOG)
                raise TuningFailed(f"the worker takes no tasks after {SERVING_SECONDS:g} s:\n{log}")
            time.sleep(TURN_SECONDS)
        for _ in range(SETTLE_SAMPLES):
            time.sleep(TURN_SECONDS)
            base = self._sample() or base
        self.seen = Observation(level, base, allowed_cores(Path("/sys/fs/cgroup")))

    def step(self) -> None:
        """Wait a little, then read what is new; raises TuningFailed."""
        time.sleep(TURN_SECONDS)
        # The last line may not be whole yet.
        *lines, self._line = (self._line + self._file.read()).split(b"\n")
        self.seen.events.update(line.decode() for line in lines)
        at, samples, cpu = now(), self.seen.samples, self.seen.cpu
        if not samples or at - samples[-1].at >= SAMPLING_SECONDS:
            sample = self._sample()
            samples += [sample] if sample is not None else []
        if not cpu or at - cpu[-1][0] >= CPU_SECONDS:
            self.read_cpu()
        self._context.sender.check()

    def read_cpu(self) -> None:
        self.seen.cpu.append((now(), tree_cpu_seconds(self._cage.guard_pid)))

    def stop(self) -> None:
        """Send SIGTERM and wait for the supervisor to drain."""
        self._cage.terminate()
        self._cage.wait(self._context.grace_seconds + STOP_MARGIN_SECONDS)

    def kill(self) -> None:
        """Kill it, and all that it runs, at once."""
        self._cage.kill()

    def runs(self) -> list[StoredRun]:
        try:
            with open_history(history_file(self._folder / "state")) as history:
                return history.runs(self._context.spec.pool, 0.0, float(1 << 40), MOST_RUNS)
        except NoHistory:
            # Killed before it wrote anything.
            return []

    def _sample(self) -> StatusSample | None:
        """Return the supervisor's status; None while it does not answer. Raises TuningFailed if it ended."""
        status = self._cage.wait(0)
        if status is not None:
            raise TuningFailed(f"the supervisor ended with {status}:\n{last_lines(self._folder / LOG)}")
        try:
            answer = msgspec.convert(ask_governor(self._folder / "run", "glance"), Status)
        except (NoSupervisor, Declined):
            return None
        container, worker = answer.container, answer.pools[self._context.spec.pool]
        own_pids = () if container.source == STATED else (os.getpid(), self._context.sender.pid)
        return StatusSample(
            at=now(),
            floor_bytes=max(0, container.floor_bytes - sum(map(private_bytes, own_pids))),
            hard_bytes=container.hard_bytes,
            limit_bytes=container.limit_bytes,
            oom_kills=container.oom_kills,
            is_serving=worker.node is not None and len(worker.children) >= worker.concurrency,
            recycles=dict(worker.recycles),
        )


def private_bytes(pid: int) -> int:
    """Return a process's anonymous and shared memory; 0 when it is gone."""
    status = read_proc_file(f"/proc/{pid}/status")
    return (read_kib(status, b"\nRssAnon:") + read_kib(status, b"\nRssShmem:")) * 1024


def tree_cpu_seconds(root: int) -> float:
    """Return the CPU time of a process, of all below it, and of those of them that were reaped.

    A process's time is added to its parent's when that reaps it (proc(5), cutime), so none is lost.
    """
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(root)
        for process in (top, *top.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total
