"""recovery_stage: not a benchmark; workers of both kinds, in containers where those are to die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.workers import clean_environment, wait_until
from recyclery.control.client import Declined, NoSupervisor, ask_governor

ROOT = Path(__file__).parents[1]
QUEUE = "low"
START_SECONDS = 120.0
STOP_SECONDS = 20.0
LOOK_SECONDS = 1.5
# PID 1 of a namespace, as of a container: all in it die with it.
CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
WORKER = ("-m", "celery", "-A", "benchmarks.recovery_app", "worker", "-l", "error", "-Q", QUEUE, "-c", "1")


class Contained:
    """A worker of one kind that is started again whenever it has ended, as an orchestrator would."""

    def __init__(self, kind: str, url: str, folder: Path, contained: bool) -> None:
        self.name = folder.name
        self._supervised = kind == "recyclery"
        self._runtime_dir = folder / "run"
        self._runtime_dir.mkdir()
        self._environment = make_environment(url, self._runtime_dir) | {"BENCH_CONTAINER": folder.name}
        command = (
            ["-m", "recyclery", "run", "--pool", "slow"]
            if kind == "recyclery"
            else [*WORKER, "-n", folder.name]
        )
        self._command = [*(CONTAINER if contained else ()), sys.executable, *command]
        self._contained = contained
        self._log = (folder / "log").open("wb")
        self._ends = False
        self._process = self._start()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            env=self._environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _keep(self) -> None:
        while not self._ends:
            self._process.wait()
            if not self._ends:
                self._process = self._start()

    @property
    def first(self) -> int:
        """The process that is PID 1, or would be; raises psutil.Error where it is gone."""
        process = psutil.Process(self._process.pid)
        return process.children()[0].pid if self._contained else process.pid

    def governor(self) -> int:
        """The governor's pid as this machine counts."""
        return next(
            child.pid
            for child in psutil.Process(self.first).children()
            if "recyclery.governor" in child.cmdline()
        )

    def status(self) -> dict[str, Any] | None:
        """Return the slow pool's part of the status; None while there is nobody to ask."""
        try:
            pools: dict[str, dict[str, Any]] = ask_governor(self._runtime_dir, "status")["pools"]
        except (NoSupervisor, Declined):
            return None
        return pools["slow"]

    def wait_until_known(self) -> None:
        """Wait until a supervisor's governor has heard of its worker, which PID 1 calls running."""
        if self._supervised:
            wait_until(self._is_known, START_SECONDS)
            # With the next look, what it holds is known as well.
            time.sleep(LOOK_SECONDS)

    def _is_known(self) -> bool:
        status = self.status()
        return status is not None and status["state"] == "running" and status["node"] is not None

    def close(self) -> None:
        """End it, and kill what does not end."""
        self._ends = True
        with suppress(psutil.Error, ProcessLookupError, IndexError):
            os.kill(self.first, signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._keeper.join()
        self._log.close()


@contextmanager
def contained(kind: str, url: str, *, in_namespace: bool = False) -> Iterator[Contained]:
    """Run `recyclery run`, or a stock worker (`celery`), with one child on the queue until the block ends."""
    with tempfile.TemporaryDirectory(prefix="rcb-", ignore_cleanup_errors=True) as folder:
        one = Contained(kind, url, Path(folder), in_namespace)
        try:
            yield one
        finally:
            one.close()


def make_environment(url: str, runtime_dir: Path) -> dict[str, str]:
    """Return the environment of a worker, whatever this benchmark was started with."""
    return {
        **clean_environment(),
        "BENCH_REDIS_URL": url,
        "REDIS_URL": url,
        "CELERY_APP": "benchmarks.recovery_app",
        "RECYCLERY_RUNTIME_DIR": str(runtime_dir),
        "RECYCLERY_STATE_DIR": str(runtime_dir / "state"),
        # It dies more often here than a pool may.
        "RECYCLERY_MAX_DEATHS": "1000",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def can_contain() -> bool:
    """Tell whether PID namespaces can be made here."""
    try:
        return subprocess.run([*CONTAINER, "true"], check=False, capture_output=True).returncode == 0
    except OSError:
        return False
