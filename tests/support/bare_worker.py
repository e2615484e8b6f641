"""A Celery worker with our pool and its link, without supervisor or governor beside it."""

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from recyclery_worker import link
from support.supervised import SUPPORT
from support.waiting import wait_for


class BareWorker:
    """The running worker, spoken to over its link."""

    def __init__(self, process: "subprocess.Popen[bytes]", runtime_dir: Path) -> None:
        self.process = process
        self.runtime_dir = runtime_dir

    def ask(self, request: link.Request, seconds: float = 10) -> link.Reply:
        """Send one request and return its reply; raises OSError where none comes in time."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.settimeout(seconds)
            peer.connect(str(link.worker_socket(self.runtime_dir, "slow")))
            peer.send(link.encode_message(request))
            return link.decode_reply(peer.recv(link.MAX_PACKET_BYTES))

    def stat(self) -> link.WorkerStat:
        """Return what it says of itself."""
        reply = self.ask(link.StatRequest())
        assert isinstance(reply, link.WorkerStat)
        return reply

    def pids(self) -> list[int]:
        """Return its children."""
        return [child.pid for child in self.stat().children]

    def retire_any(self, chance: random.Random) -> bool:
        """Ask one of its children to leave; tell whether it will."""
        return self.ask(link.RetireRequest(pid=chance.choice(self.pids()))) == link.RequestDone()


@contextmanager
def bare_worker(
    redis_url: str,
    *,
    concurrency: int = 1,
    max_tasks: int = 1000,
    options: tuple[str, ...] = (),
    app: str = "sample_app",
    max_task_deaths: int = 3,
    memory_limit_bytes: int | None = None,
    environment: Mapping[str, str] = {},
) -> Iterator[BareWorker]:
    """Run a worker of an app of the tests on queue `low` until the block ends."""
    with tempfile.TemporaryDirectory(prefix="rcy-") as runtime_dir:
        # As PID 1 writes it.
        settings = {
            "pools": [{"name": "slow", "max_task_deaths": max_task_deaths}],
            "memory": {"limit_bytes": memory_limit_bytes},
        }
        Path(runtime_dir, "settings.json").write_text(json.dumps(settings))
        variables = {
            **os.environ,
            "CELERY_CUSTOM_WORKER_POOL": "recyclery_worker.pool:TaskPool",
            "PYTHONPATH": str(SUPPORT),
            "REDIS_URL": redis_url,
            "RECYCLERY_POOL": "slow",
            "RECYCLERY_SLOT": "slow",
            "RECYCLERY_RUNTIME_DIR": runtime_dir,
            **environment,
        }
        command = [sys.executable, "-m", "recyclery_worker.celery", "-A", app, "worker", "-P", "custom"]
        command += ["-Q", "low", "-c", str(concurrency), "-l", "warning"]
        command += ["--max-tasks-per-child", str(max_tasks), "--without-mingle", "--without-gossip", *options]
        process = subprocess.Popen(command, env=variables)
        worker = BareWorker(process, Path(runtime_dir))
        try:
            wait_for(lambda: _has_children(worker, concurrency), "the worker's children")
            yield worker
        finally:
            process.terminate()
            process.wait(60)


def _has_children(worker: BareWorker, concurrency: int) -> bool:
    try:
        return len(worker.pids()) == concurrency
    except OSError:
        return False
