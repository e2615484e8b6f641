"""How many deaths a task may die before it is parked."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from recyclery_worker.link import DEFAULT_MAX_DEATHS


class PoolLimit(msgspec.Struct):
    """What of a pool's settings matters here."""

    name: str
    max_task_deaths: int = DEFAULT_MAX_DEATHS


class Limits(msgspec.Struct):
    """The settings in force, as far as they matter here."""

    pools: list[PoolLimit] = []


def is_to_be_parked(deaths: int, max_deaths: int) -> bool:
    """Tell whether a task that died so often is to run no more; a limit of 0 is none."""
    return 0 < max_deaths <= deaths


def read_max_deaths() -> int:
    """Return this pool's limit as it is now: the supervisor's settings may change while we run."""
    pool = os.environ.get("RECYCLERY_POOL")
    try:
        content = Path(os.environ.get("RECYCLERY_RUNTIME_DIR", ""), "settings.json").read_bytes()
        pools = msgspec.json.decode(content, type=Limits).pools
    except (OSError, msgspec.DecodeError):
        return DEFAULT_MAX_DEATHS
    return next((found.max_task_deaths for found in pools if found.name == pool), DEFAULT_MAX_DEATHS)
