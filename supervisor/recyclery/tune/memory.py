"""What memory a level needs, what fits a limit, and how many tasks a child has room for."""

from __future__ import annotations

import math

from recyclery.config.settings import Memory
from recyclery.decide.max_tasks import choose_max_tasks
from recyclery.decide.memory_model import PoolModel
from recyclery.tune.levels import Measured

LEVELS = Memory()
# Limits are said in steps of this.
STEP_BYTES = 64 << 20


def fits(peak_bytes: float, limit_bytes: int) -> bool:
    """Tell whether a peak leaves the supervisor at rest: above that level pools take no more tasks."""
    return peak_bytes <= limit_bytes * LEVELS.high_percent / 100


def highest_bytes(measured: Measured) -> float:
    """Return how high a level's floor must be expected to go: the highest seen, and what repeats differ by."""
    above = measured.peak_floor_bytes.high if measured.peak_floor_bytes else 0.0
    return max(measured.highest_floor_bytes, above)


def choose_limit(measured: Measured, limit_bytes: int) -> int:
    """Return the least limit below which nothing is let go for its memory; no more than the one given.

    Where something was let go all the same, less was never tried: it is the one given.
    """
    if measured.memory_recycles:
        return limit_bytes
    wanted = highest_bytes(measured) * 100 / LEVELS.retire_percent
    return min(limit_bytes, math.ceil(wanted / STEP_BYTES) * STEP_BYTES)


def choose_tasks(measured: Measured, base_bytes: int, limit_bytes: int, learned: PoolModel) -> int:
    """Return the tasks that each child has room for at this level, no more than were tried."""
    places = measured.level.concurrency
    main = max(0.0, base_bytes - places * (learned.fresh_child_bytes or 0.0))
    budget = (limit_bytes * LEVELS.retire_percent / 100 - main) / places
    return choose_max_tasks(learned, int(budget), measured.level.max_tasks_per_child)
