"""Which resource holds a level back."""

from __future__ import annotations

from typing import Literal

from recyclery.tune.levels import Measured
from recyclery.tune.memory import fits

Binding = Literal["memory", "CPU", "elsewhere", "nothing"]

# CPUs busy to this share are full: the rest goes to starts of children, and to looks at the clock.
CPU_FULL = 0.85
# Each place does less than this share of what one did at the least level: they wait for each other.
CROWDED = 0.75


def find_binding(measured: Measured, least: Measured, limit_bytes: int) -> Binding:
    """Return what binds: memory or CPU by their own figures; elsewhere, where neither does and places crowd.

    What is elsewhere, a lock or a service or a limit of somebody's, no figure of the container's can tell.
    Nothing binds where one place more would do as much as those before it.
    """
    if measured.oom_kills or measured.memory_recycles or not fits(measured.highest_floor_bytes, limit_bytes):
        return "memory"
    if measured.cpu_share >= CPU_FULL:
        return "CPU"
    if measured.pace is None or least.pace is None:
        return "nothing"
    each = measured.pace.high / measured.level.concurrency
    return "elsewhere" if each < CROWDED * least.pace.value / least.level.concurrency else "nothing"
