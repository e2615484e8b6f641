"""What the matrix runs an app in: Recyclery's container, or one with a worker of stock Celery."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import psutil

from delivery.apps.table import WHERE
from support.supervised import Supervised, supervised
from support.waiting import is_alive, wait_for

PLACES = 6
GRACE_SECONDS = 4


class Container(Protocol):
    """A running one."""

    def output(self) -> str:
        """All that it has printed."""

    def restart_main(self) -> None:
        """Start what died again where it does not do so itself, as systemd or Kubernetes would."""

    def out_of_memory(self, grown: Callable[[], list[int]]) -> None:
        """End a process that takes too much memory, as whoever comes first does it there; `grown` names it."""

    def stop(self) -> None:
        """Send a TERM."""

    def wait(self) -> None:
        """Wait until it has ended, after its grace by force."""

    def kill(self) -> list[int]:
        """Kill every process of it at once; return their pids."""


def kill_tree(pid: int) -> list[int]:
    """Kill a process, then all it started, and wait until they are dead."""
    root = psutil.Process(pid)
    pids = [pid, *(each.pid for each in root.children(recursive=True))]
    for each in pids:
        try:
            os.kill(each, signal.SIGKILL)
        except ProcessLookupError:
            continue
    wait_for(lambda: not any(map(is_alive, pids)), "all of it is dead")
    return pids


class Ours:
    """`recyclery run`."""

    def __init__(self, running: Supervised) -> None:
        self.running = running

    def output(self) -> str:
        return self.running.output

    def restart_main(self) -> None:
        """PID 1 does it."""

    def out_of_memory(self, grown: Callable[[], list[int]]) -> None:
        """The governor does it, as a limit is passed."""

    def stop(self) -> None:
        self.running.process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        self.running.wait()

    def kill(self) -> list[int]:
        return kill_tree(self.running.process.pid)


@contextmanager
def ours(redis_url: str, app: str) -> Iterator[Container]:
    """Run an app's tasks under Recyclery until the block ends."""
    environment = {
        **WHERE,
        "CELERY_APP": app,
        "CELERY_CONCURRENCY": str(PLACES),
        "RECYCLERY_GRACE": str(GRACE_SECONDS),
        "RECYCLERY_MEMORY_LIMIT": "640MiB",
    }
    with supervised("--pool", "slow", redis_url=redis_url, environment=environment) as running:
        running.wait_until_ready("slow")
        yield Ours(running)


LATE_BY_DEFAULT = """
from celery.app import defaults
defaults.DEFAULTS.update(task_acks_late=True, task_reject_on_worker_lost=True)
defaults._OLD_DEFAULTS.update(CELERY_ACKS_LATE=True, CELERY_REJECT_ON_WORKER_LOST=True)
"""
RUN_CELERY = """
from celery.__main__ import main
main()
"""


class Stock:
    """`celery worker`, which nothing supervises but this class."""

    def __init__(self, redis_url: str, app: str, folder: Path, *, late: bool) -> None:
        code = LATE_BY_DEFAULT * late + RUN_CELERY
        self.command = [sys.executable, "-c", code, "-A", app, "worker", "-Q", "low", "-c", str(PLACES)]
        self.command += ["-l", "info", "-n", f"{folder.name}@%h"]
        self.log = folder / "log"
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "RECYCLERY_"))
        }
        self.environment = {**clean, **WHERE, "REDIS_URL": redis_url}
        self.starts = 0
        self.start()

    def start(self) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, env=self.environment, stdout=log, stderr=log)
        self.starts += 1
        wait_for(lambda: self.output().count(" ready.\n") == self.starts, "stock Celery is ready")

    def output(self) -> str:
        # The file goes with the container.
        if self.log.exists():
            self.printed = self.log.read_text(errors="replace")
        return self.printed

    def restart_main(self) -> None:
        # It may live, if what was to kill it did not.
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
            self.start()

    def out_of_memory(self, grown: Callable[[], list[int]]) -> None:
        # As the kernel would.
        os.kill(wait_for(grown, "it has grown")[0], signal.SIGKILL)

    def stop(self) -> None:
        self.process.terminate()

    def wait(self) -> None:
        try:
            self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> list[int]:
        pids = kill_tree(self.process.pid)
        self.process.wait()
        return pids


@contextmanager
def stock(redis_url: str, app: str, *, late: bool = False) -> Iterator[Container]:
    """Run an app's tasks with Celery alone; `late`: with both settings for that as Celery's defaults."""
    with tempfile.TemporaryDirectory(prefix="stock-") as folder:
        running = Stock(redis_url, app, Path(folder), late=late)
        try:
            yield running
        finally:
            if running.process.poll() is None:
                running.stop()
                running.wait()
            running.output()
