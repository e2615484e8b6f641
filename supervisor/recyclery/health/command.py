"""`recyclery health`, for a HEALTHCHECK: the age of the governor's heartbeat, and every pool's state.

It reads one small file and imports little, because it runs every few seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from recyclery.common.pool_state import PoolState
from recyclery.config.paths import find_runtime_dir, heartbeat_file

STALE_SECONDS = 10.0


def find_fault(path: Path, now: float) -> str | None:
    """Return what is wrong by the heartbeat file at `now` (monotonic seconds); None where all is well."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        silent = now - float(content["at"])
        pools: Mapping[str, str] = content["pools"]
    except FileNotFoundError:
        return f"{path} is not there: is `recyclery run` up, and RECYCLERY_RUNTIME_DIR the same here as there?"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{path} cannot be read: {error}"
    if silent < 0:
        return "the governor has not been heard of since the machine started"
    return find_stale_heartbeat(silent) or find_unhealthy_pools(pools)


def find_stale_heartbeat(seconds: float) -> str | None:
    """Return what is wrong with a governor whose last heartbeat is this old."""
    return f"the governor has not been heard of for {seconds:.0f} s" if seconds > STALE_SECONDS else None


def find_unhealthy_pools(pools: Mapping[str, str]) -> str | None:
    """Return which pools are unhealthy; None where none is."""
    ill = [f"{name} is {state}" for name, state in pools.items() if not PoolState(state).is_healthy]
    return "; ".join(ill) or None


def main() -> int:
    """Print one line and return 1 where something is wrong, else 0."""
    fault = find_fault(heartbeat_file(find_runtime_dir(os.environ)), time.monotonic())
    print(fault or "healthy")
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
