"""The governor's heartbeat: a byte to PID 1 and a small file for `recyclery health`, once a second.

The loop that observes and acts writes both, so both stop when it hangs. PID 1 needs only the byte, which
takes no disk; the file also has the pools' states.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recyclery.config.paths import heartbeat_file

# Not part of supervisord's event protocol, which shares standard output.
HEARTBEAT_BYTE = b"\0"
WRITE_SECONDS = 1.0

log = logging.getLogger("recyclery")


@dataclass(frozen=True)
class Heartbeat:
    """One heartbeat: its time (monotonic seconds) and the pools' states by name."""

    at: float
    states: Mapping[str, str]


class HeartbeatWriter:
    """Writes heartbeats, at most one every EVERY_SECONDS."""

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
                log.warning("%s: %s; `recyclery health` cannot tell how it is", self._path, error.strerror)
            self._writes = False
        else:
            self._writes = True
