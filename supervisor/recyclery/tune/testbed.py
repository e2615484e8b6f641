"""A real supervisor over one pool, for one level, in a folder of its own: gone afterwards."""

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
from types import TracebackType
from typing import Self

from recyclery.config import secrets
from recyclery.config.paths import history_file
from recyclery.history.reader import NoHistory, Run, open_history
from recyclery.sandbox.cage import Cage, last_lines
from recyclery.sandbox.cgroups import CannotCageError
from recyclery.serve.client import Declined, NoSupervisor
from recyclery.tune.samples import Look, look
from recyclery.tune.spec import Level
from recyclery_worker.tuned.space import MARKS, SPACE, Space

# Not in $TMPDIR: a socket's whole path has but 107 bytes.
PLACE = Path("/tmp")  # noqa: S108  # each folder is made for its owner alone
PREFIX = "rt-"
# One that was just made is not locked yet.
YOUNG_SECONDS = 60.0


@contextmanager
def own_folder(place: Path = PLACE) -> Iterator[Path]:
    """Yield a folder that is removed afterwards, and remove those of our tunings that were killed."""
    remove_dead(place)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def remove_dead(place: Path) -> None:
    """Remove the folders whose tuning is gone: the kernel let go of its lock."""
    for folder in place.glob(f"{PREFIX}*"):
        try:
            held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            about = os.fstat(held)
            if about.st_uid == os.geteuid() and time.time() - about.st_mtime > YOUNG_SECONDS:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(held)


READY_SECONDS = 180.0
# Above the supervisor's own time for what runs.
STOP_SECONDS = 30.0
# The newest runs of a level are more than enough to know how large its children grew.
MOST_RUNS = 100_000


class StageFailed(Exception):
    """The supervisor does not start, or has ended; the message has the end of its log."""


def supervisor_environment(
    base: Mapping[str, str], space: Space, pool: str, level: Level, folder: Path
) -> dict[str, str]:
    """Return the environment of a supervisor that runs one pool at one level, apart from all in service."""
    # What it would serve or tell is another supervisor's.
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
        MARKS: str(marks_file(folder)),
    }


def marks_file(folder: Path) -> Path:
    """Where the tasks of a level are marked."""
    return folder / "marks"


class Stage:
    """The running supervisor. Leaving the block kills whatever is left of it, and so does our own death."""

    def __init__(
        self, *, pool: str, options: tuple[str, ...], environment: Mapping[str, str], folder: Path
    ) -> None:
        self._pool = pool
        self._folder = folder
        self._log = folder / "supervisor.log"
        try:
            self._cage = Cage(
                [sys.executable, "-m", "recyclery", "run", *options],
                environment=environment,
                folder=Path.cwd(),
                log=self._log,
            )
        except CannotCageError as error:
            raise StageFailed(str(error)) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cage.close()

    @property
    def guard_pid(self) -> int:
        """The process that has all of it below itself."""
        return self._cage.guard_pid

    def look(self, ours: tuple[int, ...]) -> Look | None:
        """Look at it; None while nobody answers. Raises StageFailed where it has ended."""
        status = self._cage.wait(0)
        if status is not None:
            raise StageFailed(f"the supervisor ended with {status}:\n{last_lines(self._log)}")
        try:
            return look(self._folder / "run", self._pool, ours)
        except (NoSupervisor, Declined):
            return None

    def wait_until_serving(self, ours: tuple[int, ...]) -> Look:
        """Return how things are once the worker takes tasks, with all its children up; raises StageFailed."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            seen = self.look(ours)
            if seen is not None and seen.serves:
                return seen
            time.sleep(0.2)
        raise StageFailed(f"the worker takes no tasks after {READY_SECONDS:g} s:\n{last_lines(self._log)}")

    def stop(self, grace_seconds: float) -> None:
        """Have it end in order; what still runs after the grace is killed."""
        self._cage.terminate()
        self._cage.wait(grace_seconds + STOP_SECONDS)

    def kill(self) -> None:
        """End it, and all that it runs, at once."""
        self._cage.kill()

    def runs(self) -> list[Run]:
        """Return what its history has of the tasks."""
        try:
            with open_history(history_file(self._folder / "state")) as history:
                return history.runs(self._pool, 0.0, float(1 << 40), MOST_RUNS)
        except NoHistory:
            # Killed before it wrote anything.
            return []
