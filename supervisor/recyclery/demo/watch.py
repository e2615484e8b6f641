"""One look at a storm: its tasks, its memory, its browsers."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from recyclery.demo.meters import Meter
from recyclery.demo.status import StatusPoll
from recyclery.demo.storm import Storm
from recyclery.demo.tally import percentile
from recyclery.observe.processes import read_file
from recyclery.observe.snapshot import Process
from recyclery.sandbox.cage import Cage
from recyclery.sandbox.guard import descendants

NOT_BROWSERS = ("chromedriver", "chrome_crashpad")


@dataclass(frozen=True)
class Moment:
    """What a storm looked like at one moment."""

    elapsed_seconds: float
    done: int
    failed: int
    pinged: int
    fast_p95_seconds: float | None
    usage_bytes: int
    floor_bytes: int
    oom_kills: int
    browsers: int
    defunct: int
    reaped: int
    recycles: Mapping[str, int]


class Watcher:
    """Looks at a storm from outside its cage."""

    def __init__(self, cage: Cage, meter: Meter, storm: Storm, poll: StatusPoll) -> None:
        self._cage = cage
        self._meter = meter
        self._storm = storm
        self._poll = poll
        self._started = time.monotonic()

    def look(self) -> Moment:
        """Return the moment."""
        counts = self._storm.read_counts()
        browsers, defunct = self.count_processes()
        status = self._poll.latest
        return Moment(
            elapsed_seconds=time.monotonic() - self._started,
            done=counts.tally.succeeded,
            failed=counts.tally.failed,
            pinged=counts.pinged,
            fast_p95_seconds=percentile(counts.latencies_seconds, 95),
            usage_bytes=self._meter.usage_bytes(),
            floor_bytes=self._meter.floor_bytes(),
            oom_kills=self._meter.oom_kills(),
            browsers=browsers,
            defunct=defunct,
            reaped=status.reaped,
            recycles=status.recycles,
        )

    def count_processes(self) -> tuple[int, int]:
        """Return the running browsers and the defunct processes in the cage."""
        below = descendants(self._cage.guard_pid)
        return sum(is_browser(process) for process in below), sum(process.is_defunct for process in below)


def is_browser(process: Process) -> bool:
    """Whether this is the main process of a Chrome: its helpers all carry a --type."""
    if process.is_defunct or not process.name.startswith("chrom") or process.name in NOT_BROWSERS:
        return False
    arguments = read_file(f"/proc/{process.pid}/cmdline")
    return bool(arguments) and b"--type=" not in arguments
