"""A real supervisor over one pool, for one level: started on the tuning's queue, and gone afterwards."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from recyclery.config import secrets
from recyclery.config.paths import history_file
from recyclery.demo.cage import Cage
from recyclery.demo.home import CannotCageError
from recyclery.demo.services import last_lines
from recyclery.history.reader import NoHistory, Run, open_history
from recyclery.serve.client import Declined, NoSupervisor
from recyclery.tune.looks import Look, look
from recyclery.tune.windows import Level
from recyclery_worker.tuned.space import MARKS, SPACE, Space

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
