"""How this worker's lease stands, in memory that its main process shares with the pool's children.

The main process asks before it hands a task over. A child asks again before it begins: both may have stood
still in between, for longer than the lease.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from typing import Any

from celery.exceptions import Ignore

from recyclery_worker.link import now

LOOK_EVERY_SECONDS = 0.02
VALID_UNTIL, LOST, UNANSWERED = range(3)


class Standing:
    """One lease's state; times in seconds of CLOCK_BOOTTIME, which goes on in a freeze."""

    def __init__(self) -> None:
        # Anonymous and shared, so a fork has the same page; eight bytes are written at once.
        self._shared = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")
        self._main_pid = os.getpid()

    @property
    def is_valid(self) -> bool:
        """Whether nobody can have given our messages away; so too before there is a lease."""
        until = self._shared[VALID_UNTIL]
        return until == 0.0 or now() <= until

    @property
    def is_lost(self) -> bool:
        """Whether our messages were given to others."""
        return self._shared[LOST] != 0.0

    def note_renewed(self, until: float) -> None:
        """Note up to when it is valid."""
        self._shared[VALID_UNTIL] = until

    def note_lost(self) -> None:
        """Note that it is lost, for good."""
        self._shared[LOST] = 1.0

    def note_unanswered(self, asked: float) -> None:
        """Note that Redis was asked at a time, and was away."""
        self._shared[UNANSWERED] = asked

    def is_ours(self) -> bool:
        """Tell, in a child, whether a task may begin; waits until the main process knows.

        It may where Redis is away, for then nobody else has it either. Raises SystemExit when the main process
        is gone: what it handed over will be given to others.
        """
        asked = now()
        while not self.is_valid and not self.is_lost and self._shared[UNANSWERED] < asked:
            if os.getppid() != self._main_pid:
                raise SystemExit("its worker is gone")
            time.sleep(LOOK_EVERY_SECONDS)
        return not self.is_lost


def ask_before_each(standing: Standing, wait_for_job: Callable[[], Any]) -> Callable[[], Any]:
    """Return billiard's `wait_for_job` (`Worker.workloop`) such that what is not ours any more is not run."""

    def wait_and_ask() -> Any:
        message = wait_for_job()
        if message and not standing.is_ours():
            kind, (job, number, _, _, _) = message
            return kind, (job, number, leave_to_others, (), {})
        return message

    return wait_and_ask


def leave_to_others() -> None:
    """Stand in for a task that was given to another worker; Celery stores nothing of one that ends so."""
    raise Ignore("another worker has it")
