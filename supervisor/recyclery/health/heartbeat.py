"""The governor's heartbeat: a byte to PID 1 and a small file for `recyclery health`, once a second.

The loop that observes and acts writes both, so both stop when it hangs. PID 1 needs only the byte, which
takes no disk; the file also has the pools' states. `recyclery health` runs every few seconds for a HEALTHCHECK,
so this module imports little.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from recyclery.common.pool_state import PoolState
from recyclery.config.paths import find_runtime_dir, heartbeat_file

# Not part of supervisord's event protocol, which shares standard output.
HEARTBEAT_BYTE = b"\0"
WRITE_SECONDS = 1.0
STALE_SECONDS = 10.0


class Heartbeat(NamedTuple):
    """One heartbeat: its time (monotonic seconds) and the pools' states by name."""

    at: float
    states: Mapping[str, str]


class HeartbeatWriter:
    """Writes heartbeats, at most one every WRITE_SECONDS."""

    def __init__(self, runtime_dir: Path) -> None:
        self._path = heartbeat_file(runtime_dir)
        self._due = 0.0
        self._writes = True
        self.last: Heartbeat | None = None

    def beat(self, states: Mapping[str, str]) -> None:
        """Write one heartbeat if it is due."""
        # Not CLOCK_BOOTTIME: a suspended machine did not miss heartbeats.
        at = time.monotonic()
        if at < self._due:
            return
        self._due = at + WRITE_SECONDS
        self.last = Heartbeat(at, dict(states))
        sys.stdout.buffer.write(HEARTBEAT_BYTE)
        sys.stdout.buffer.flush()
        try:
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps({"at": at, "pools": dict(states)}), encoding="utf-8")
            os.replace(new, self._path)  # noqa: PTH105  # one step, as rename(2) is
        except OSError as error:
            if self._writes:
                # Imported late: `recyclery health` must not pay for it.
                import logging  # noqa: PLC0415

                text = "%s: %s; `recyclery health` cannot tell how it is"
                logging.getLogger("recyclery").warning(text, self._path, error.strerror)
            self._writes = False
        else:
            self._writes = True


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
