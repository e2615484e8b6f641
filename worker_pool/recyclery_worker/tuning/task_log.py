"""When each task of a tuning was to come, began and ended: a line each in a file of the tuning's.

`due NUMBER SECONDS`, `began NUMBER SECONDS PID`, `ended NUMBER SECONDS STATE [ERROR]`; seconds of
CLOCK_BOOTTIME. A line is one write to a file opened for appending, so those of several processes do not mix.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import signals

from recyclery_worker.link import now
from recyclery_worker.tuning.messages import Space

Write = Callable[..., None]


def open_marks(path: Path) -> Write:
    """Return what writes a line of these words."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(*words: object) -> None:
        os.write(file, f"{' '.join(map(str, words))}\n".encode())

    return write


def mark_tasks(space: Space, path: Path) -> None:
    """Write a line as each task of the tuning begins, and as it ends, in whatever kind of pool."""
    write = open_marks(path)

    def began(task_id: str = "", **_: Any) -> None:
        number = space.number_of(task_id)
        if number is not None:
            write("began", number, f"{now():.6f}", os.getpid())

    def failed(task_id: str = "", exception: Any = None, **_: Any) -> None:
        number = space.number_of(task_id)
        if number is not None:
            write("ended", number, f"{now():.6f}", "FAILURE", type(exception).__name__)

    def ended(task_id: str = "", state: str | None = None, **_: Any) -> None:
        number = space.number_of(task_id)
        if number is not None:
            write("ended", number, f"{now():.6f}", state or "FAILURE")

    signals.task_prerun.connect(began, weak=False, dispatch_uid="recyclery.tuned.began")
    # Also of one whose hard time limit passed, by the main process: its child says nothing more.
    signals.task_failure.connect(failed, weak=False, dispatch_uid="recyclery.tuned.failed")
    signals.task_postrun.connect(ended, weak=False, dispatch_uid="recyclery.tuned.ended")
