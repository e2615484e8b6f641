"""Asking the supervisor, as an operator would: `recyclery status --json`, again and again beside the storm."""

import contextlib
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

POLL_SECONDS = 2.0
ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Status:
    """The part of the supervisor's status that the demo shows."""

    recycles: Mapping[str, int] = field(default_factory=dict)
    reaped: int = 0


def read_status(document: Mapping[str, Any]) -> Status:
    """Add up the recycles of all pools by reason."""
    recycles: Counter[str] = Counter()
    for pool in document.get("pools", {}).values():
        recycles.update(pool.get("recycles", {}))
    reaped = document.get("browsers", {}).get("reaped", 0)
    return Status({reason: count for reason, count in recycles.items() if count}, int(reaped))


class StatusPoll:
    """The latest status; a supervisor that does not answer leaves the one before it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.latest = Status()
        self._environment = dict(environment)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="status-poll", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask one last time and no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
            self.ask()

    def ask(self) -> None:
        """Ask once; failing to is no failure of the storm."""
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError, AttributeError, TypeError):
            answer = subprocess.run(
                [sys.executable, "-m", "recyclery", "status", "--json"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=ANSWER_SECONDS,
                check=True,
                start_new_session=True,
            )
            self.latest = read_status(json.loads(answer.stdout))

    def _poll(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self.ask()
