"""A real `recyclery run` over the sample app, in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recyclery.control.client import ask_governor
from recyclery_worker import link
from support.waiting import wait_for

SUPPORT = Path(__file__).parent


class Supervised:
    """The running supervisor: its output so far, its status, its end."""

    def __init__(self, process: "subprocess.Popen[str]", runtime_dir: Path) -> None:
        self.process = process
        self.runtime_dir = runtime_dir
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        """All it has printed."""
        return "\n".join(self.lines)

    def wait_for_line(self, text: str, count: int = 1, seconds: float = 120.0) -> None:
        """Wait until `count` lines hold the text."""
        wait_for(
            lambda: sum(text in line for line in list(self.lines)) >= count or self._ended(text),
            f"{text!r} in the output:\n{self.output}",
            seconds,
        )

    def _ended(self, text: str) -> bool:
        if self.process.poll() is not None:
            self._reader.join(5)
            if not any(text in line for line in self.lines):
                raise AssertionError(f"ended without {text!r}:\n{self.output}")
        return False

    def wait_until_ready(self, *pools: str) -> None:
        """Wait until the named pools' workers take tasks."""
        for pool in pools:
            self.wait_for_line(f"{pool}@{os.uname().nodename} ready")

    def status(self) -> dict[str, Any]:
        """Return the status document, as `recyclery status --json` prints it."""
        return ask_governor(self.runtime_dir, "status")

    def stop(self, signum: int = signal.SIGTERM, seconds: float = 40.0) -> int:
        """Signal it and return its exit code."""
        self.process.send_signal(signum)
        return self.wait(seconds)

    def wait(self, seconds: float = 40.0) -> int:
        """Return its exit code."""
        code = self.process.wait(seconds)
        self._reader.join(5)
        return code


def ask_raw(running: Supervised, packet: bytes, pool: str = "slow") -> link.Reply:
    """Send a packet to a pool's worker over its link and return the reply."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.settimeout(10)
        peer.connect(str(link.worker_socket(running.runtime_dir, pool)))
        peer.send(packet)
        return link.decode_reply(peer.recv(link.MAX_PACKET_BYTES))


def ask(running: Supervised, request: link.Request, pool: str = "slow") -> link.Reply:
    """Send a request to a pool's worker over its link and return the reply."""
    return ask_raw(running, link.encode_message(request), pool)


@contextmanager
def supervised(
    *arguments: str, redis_url: str, environment: Mapping[str, str] = {}, wrapper: tuple[str, ...] = ()
) -> Iterator[Supervised]:
    """Run `recyclery run ARGUMENTS` on the sample app until the block ends."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "RECYCLERY_"))
    }
    # What runs in a namespace dies, and writes to the folder, until a moment after its wrapper has ended.
    with tempfile.TemporaryDirectory(prefix="rcy-", ignore_cleanup_errors=bool(wrapper)) as runtime_dir:
        process = subprocess.Popen(
            [*wrapper, sys.executable, "-m", "recyclery", "run", *arguments],
            env={
                **clean,
                "CELERY_APP": "sample_app",
                "PYTHONPATH": str(SUPPORT),
                "REDIS_URL": redis_url,
                "RECYCLERY_RUNTIME_DIR": runtime_dir,
                "RECYCLERY_STATE_DIR": f"{runtime_dir}/state",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        running = Supervised(process, Path(runtime_dir))
        try:
            yield running
        finally:
            if process.poll() is None:
                # unshare(1) does not pass a TERM on, and what it runs dies with it.
                process.send_signal(signal.SIGKILL if wrapper[:1] == ("unshare",) else signal.SIGTERM)
                try:
                    process.wait(40)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
