"""The governor's signs of life: a byte to PID 1 and a small file for `recyclery health`, once a second.

Both are given by the loop that observes and acts, so neither comes when that hangs. PID 1 goes by the byte,
which needs no disk; the file says besides how the pools are.
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

# Never part of supervisord's event protocol, with which it shares standard output.
BEAT = b"\0"
HEARTBEAT_SECONDS = 1.0

log = logging.getLogger("recyclery")


@dataclass(frozen=True)
class Beat:
    """One sign of life: when it was given (monotonic seconds), and the pools' states by their names."""

    at: float
    states: Mapping[str, str]


class Heart:
    """Gives the signs, not more often than EVERY_SECONDS."""

    def __init__(self, runtime_dir: Path) -> None:
        self._path = heartbeat_file(runtime_dir)
        self._due = 0.0
        self._writes = True
        self.last: Beat | None = None

    def beat(self, states: Mapping[str, str]) -> None:
        """Say that the loop turned, and the pools' states by their names."""
        # Not the boot's clock: a machine that slept was not silent.
        at = time.monotonic()
        if at < self._due:
            return
        self._due = at + HEARTBEAT_SECONDS
        self.last = Beat(at, dict(states))
        sys.stdout.buffer.write(BEAT)
        sys.stdout.buffer.flush()
        try:
            self._write({"at": at, "pools": dict(states)})
        except OSError as error:
            if self._writes:
                log.warning("%s: %s; `recyclery health` cannot tell how it is", self._path, error.strerror)
            self._writes = False
        else:
            self._writes = True

    def _write(self, content: object) -> None:
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps(content), encoding="utf-8")
        os.replace(beside, self._path)  # noqa: PTH105  # one step, as rename(2) is
