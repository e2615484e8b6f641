"""A real supervisor over one pool, for one level, in a temporary folder: both are removed afterwards."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from recyclery.config import secrets
from recyclery.config.paths import history_file
from recyclery.control.client import Declined, NoSupervisor
from recyclery.history.reader import NoHistory, Run, open_history
from recyclery.sandbox.cage import Cage, last_lines
from recyclery.sandbox.cgroups import CannotCageError
from recyclery.tune.samples import StatusSample, sample_status
from recyclery.tune.spec import Level
from recyclery_worker.tuning.messages import MARKS, SPACE, Space

# Not in $TMPDIR: a socket's whole path has only 107 bytes.
PARENT = Path("/tmp")  # noqa: S108  # each folder is made for its owner alone
PREFIX = "rt-"
EVENTS = "events"
# A younger folder may not be locked yet.
YOUNG_SECONDS = 60.0
READY_SECONDS = 180.0
# Beyond the time that the supervisor itself gives to running tasks.
STOP_SECONDS = 30.0
# More than enough of a level's newest runs to know how large its children grew.
MOST_RUNS = 100_000


class TestbedFailed(Exception):
    """The supervisor does not start, or has ended; the message has the end of its log."""


@contextmanager
def temporary_folder(parent: Path = PARENT) -> Iterator[Path]:
    """Yield a folder that is removed afterwards; remove those of the user's tunings that were killed."""
    remove_abandoned(parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders whose tuning is gone: the kernel released its lock."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            found = os.fstat(held)
            if found.st_uid == os.geteuid() and time.time() - found.st_mtime > YOUNG_SECONDS:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(held)


def supervisor_environment(
    base: Mapping[str, str], space: Space, pool: str, level: Level, folder: Path
) -> dict[str, str]:
    """Return the environment of a supervisor that runs one pool at one level, apart from all in service."""
    # Another supervisor serves the port and uses the secrets.
    kept = {name: value for name, value in base.items() if name not in {"PORT", *secrets.ALL}}
    return {
        **kept,
        "CELERY_WORKER_NAME": pool,
        "CELERY_QUEUES": space.queue,
        "CELERY_CONCURRENCY": str(level.concurrency),
        "CELERY_MAX_TASKS_PER_CHILD": str(level.max_tasks_per_child),
        "RECYCLERY_RUNTIME_DIR": str(folder / "run"),
        "RECYCLERY_STATE_DIR": str(folder / "state"),
        "RECYCLERY_HTTP": "off",
        SPACE: space.name,
        MARKS: str(folder / EVENTS),
    }


class Testbed:
    """The running supervisor. The guard of its cage kills it if the tuning dies."""

    def __init__(
        self,
        pool: str,
        options: tuple[str, ...],
        environment: Mapping[str, str],
        folder: Path,
        own_pids: tuple[int, ...],
    ) -> None:
        self._pool = pool
        self._folder = folder
        self._own_pids = own_pids
        self._log = folder / "supervisor.log"
        try:
            self._cage = Cage(
                [sys.executable, "-m", "recyclery", "run", *options],
                environment=environment,
                folder=Path.cwd(),
                log=self._log,
            )
        except CannotCageError as error:
            raise TestbedFailed(str(error)) from None

    @property
    def guard_pid(self) -> int:
        """The process that has all others of the testbed below itself."""
        return self._cage.guard_pid

    def sample(self) -> StatusSample | None:
        """Return the supervisor's status; None while it does not answer. Raises TestbedFailed if it ended."""
        status = self._cage.wait(0)
        if status is not None:
            raise TestbedFailed(f"the supervisor ended with {status}:\n{last_lines(self._log)}")
        try:
            return sample_status(self._folder / "run", self._pool, self._own_pids)
        except (NoSupervisor, Declined):
            return None

    def wait_until_serving(self) -> StatusSample:
        """Return the status once the worker takes tasks, with all its children up; raises TestbedFailed."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            sample = self.sample()
            if sample is not None and sample.is_serving:
                return sample
            time.sleep(0.2)
        raise TestbedFailed(f"the worker takes no tasks after {READY_SECONDS:g} s:\n{last_lines(self._log)}")

    def stop(self, grace_seconds: float) -> None:
        """Send SIGTERM and wait for the supervisor to drain; closing kills what is left."""
        self._cage.terminate()
        self._cage.wait(grace_seconds + STOP_SECONDS)

    def kill(self) -> None:
        """Kill it, and all that it runs, at once."""
        self._cage.kill()

    def close(self) -> None:
        """Kill all that is left."""
        self._cage.close()

    def runs(self) -> list[Run]:
        """Return the task runs in its history."""
        try:
            with open_history(history_file(self._folder / "state")) as history:
                return history.runs(self._pool, 0.0, float(1 << 40), MOST_RUNS)
        except NoHistory:
            # Killed before it wrote anything.
            return []
