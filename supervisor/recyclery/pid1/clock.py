"""The clock that supervisord's deadlines go by: it neither jumps nor runs while we do not."""

from __future__ import annotations

import time
from collections.abc import Callable

from supervisor import (  # type: ignore[attr-defined]  # supervisor has no types
    process,
    rpcinterface,
    supervisord,
)

# The loop asks at least once a second; a longer step means that nobody here ran.
LONGEST_STEP_SECONDS = 2.0


class RunningClock:
    """Counts the seconds in which this process ran, from the time of day at which it began.

    A step of the wall clock, a suspended machine and a frozen container pass it by: no task is killed for
    time that it did not have, and no governor called silent that could not speak. Between two looks at most
    LONGEST_STEP_SECONDS are counted.
    """

    def __init__(self, read: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._before = read()
        self._shown = time.time()

    def time(self) -> float:
        """Return the time, as time.time() does."""
        now = self._read()
        self._shown += min(now - self._before, LONGEST_STEP_SECONDS)
        self._before = now
        return self._shown

    def __getattr__(self, name: str) -> object:
        """The rest of the module `time`, which this stands for."""
        return getattr(time, name)


def give_to_supervisord(clock: RunningClock) -> None:
    """Have supervisord's state machine ask this clock; it reads time.time(), whose steps end a grace early."""
    for module in (process, rpcinterface, supervisord):
        module.time = clock
