"""Ends a task that holds too much memory, by an exception in its child, as Celery's soft time limit does."""

import mmap
import os
import signal
from collections.abc import Callable
from types import FrameType

import msgspec
from celery.app import trace

# Ignored by default, like SIGURG: it does no harm to a child whose code has put its own handler in this one's
# place. A pool child has no terminal whose size could change.
LIMIT_SIGNAL = signal.SIGWINCH
NOTE_BYTES = 4096


class TaskMemoryLimitExceeded(Exception):
    """The task and all that it started hold more memory than `max_task_bytes` of its pool allows."""


class LimitNote:
    """Which task is to end, and why: memory that a worker's main process shares with one child.

    Made before the fork. The task's id is in it, as the next task may have begun when the signal arrives.
    """

    def __init__(self) -> None:
        self._content = mmap.mmap(-1, NOTE_BYTES)

    def send(self, pid: int, task_id: str, reason: str) -> None:
        """Have the child raise TaskMemoryLimitExceeded in this task; raises OSError where it is gone."""
        self._content[:] = msgspec.json.encode((task_id, reason))[:NOTE_BYTES].ljust(NOTE_BYTES)
        os.kill(pid, LIMIT_SIGNAL)

    def listen(self, current_task: Callable[[], str | None]) -> None:
        """Raise the exception in this process when the task is told to end that runs then."""

        def stop_task(_: int, frame: FrameType | None) -> None:
            # It comes when somebody else sends the signal too.
            try:
                task_id, reason = msgspec.json.decode(self._content[:], type=tuple[str, str])
            except msgspec.DecodeError:
                return
            if task_id == current_task() and is_in_task(frame):
                raise TaskMemoryLimitExceeded(reason)

        signal.signal(LIMIT_SIGNAL, stop_task)


def is_in_task(frame: FrameType | None) -> bool:
    """Return whether Celery's tracer is among the callers: outside of it the child sends a result or waits."""
    while frame is not None and frame.f_code.co_filename != trace.__file__:
        frame = frame.f_back
    return frame is not None
