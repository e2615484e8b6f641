"""browsers_stage: not a benchmark; a real `recyclery run` whose slow pool starts browsers, in a cage."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from celery import Celery

from benchmarks.workers import make_sender, running_redis, wait_until
from recyclery_demo.cage import CgroupCage
from recyclery_demo.cgroups import SandboxCgroup
from recyclery_worker.browser.context import DIR_VARIABLE
from recyclery_worker.browser.driver import find_browser

APP = "benchmarks.browsers_app"
QUEUE = "low"
START_SECONDS = 90.0
STOP_SECONDS = 40.0


@dataclass(frozen=True)
class Stage:
    """The supervisor in its cage, who sends it work, and where it leaves its files."""

    cage: CgroupCage
    sender: Celery
    redis_url: str
    temporary: Path
    shared_memory: Path
    log: Path

    def stop(self) -> int:
        """Ask PID 1 to stop; return its exit status, 137 where it had to be killed."""
        self.cage.terminate()
        status = self.cage.wait(STOP_SECONDS)
        if status is None:
            self.cage.kill()
            status = self.cage.wait(10.0)
        return 137 if status is None else status


@contextmanager
def private_temporary() -> Iterator[Path]:
    """Make a temporary folder of our own, and have everything started here use it."""
    # Short, for a socket's path has 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="rcb-", dir="/tmp"))
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    variable = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        if variable is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = variable
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_stage(
    temporary: Path, concurrency: int, max_tasks: int, cgroup: SandboxCgroup | None = None
) -> Iterator[Stage]:
    """Run it until the block ends; with a cgroup it is PID 1 of a namespace, with a /dev/shm of its own."""
    with running_redis() as redis_url, tempfile.TemporaryDirectory(prefix="rcr-", dir="/tmp") as folder:
        log = Path(folder) / "log"
        with CgroupCage(
            [sys.executable, "-m", "recyclery", "run"],
            environment=make_environment(redis_url, Path(folder), temporary, concurrency, max_tasks),
            folder=Path(folder),
            log=log,
            cgroup=cgroup,
        ) as cage:
            sender = make_sender(redis_url)
            wait_until(lambda: cage.wait(0) is not None or sender.control.ping(timeout=0.5), START_SECONDS)
            if cage.wait(0) is not None:
                raise RuntimeError(f"recyclery ended at once:\n{log.read_text(errors='replace')[-2000:]}")
            root = Path(f"/proc/{cage.pid}/root")
            yield Stage(cage, sender, redis_url, temporary, root / "dev/shm", log)


def make_environment(
    redis_url: str, folder: Path, temporary: Path, concurrency: int, max_tasks: int
) -> dict[str, str]:
    """Return our environment without what would change the supervisor, and with what it needs."""
    foreign = ("CELERY_", "RECYCLERY_", "PORT", "SELENIUM_", "BENCH_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    pair = find_browser()
    return {
        **clean,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "CELERY_APP": APP,
        "CELERY_WORKER_NAME": "slow",
        "CELERY_CONCURRENCY": str(concurrency),
        "CELERY_MAX_TASKS_PER_CHILD": str(max_tasks),
        "REDIS_URL": redis_url,
        "CHROME_BINARY": str(pair.chrome),
        "CHROMEDRIVER": str(pair.chromedriver),
        "RECYCLERY_RUNTIME_DIR": str(folder / "run"),
        "RECYCLERY_STATE_DIR": str(folder / "state"),
        DIR_VARIABLE: "",  # No evidence: whatever is left in the temporary folder is a leftover.
        "TMPDIR": str(temporary),
    }
