"""`recyclery health` beside real workers: what turns it, and what turns it back."""

import os
import signal
import subprocess
import sys
import time
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from recyclery.config.paths import heartbeat_file
from recyclery.health.heartbeat import find_fault
from support.ports import free_port
from support.supervised import Supervised, supervised
from support.waiting import wait_for

# For a machine that has much else to do.
pytestmark = pytest.mark.timeout(400)


def health(running: Supervised) -> tuple[int, str]:
    """Return the exit code of `recyclery health` and its line."""
    done = subprocess.run(
        [sys.executable, "-m", "recyclery", "health"],
        env=os.environ | {"RECYCLERY_RUNTIME_DIR": str(running.runtime_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert len(done.stdout.splitlines()) == 1
    return done.returncode, done.stdout.strip()


def wait_for_fault(running: Supervised, fault: str) -> None:
    """Wait until this is what is wrong, or nothing is: read as `recyclery health` does, without its process."""
    heartbeat = heartbeat_file(running.runtime_dir)

    def is_seen() -> bool:
        found = find_fault(heartbeat, time.monotonic()) or ""
        return fault in found if fault else not found

    wait_for(is_seen, fault or "healthy", seconds=100)


def probe(port: int, path: str) -> tuple[int, str]:
    """Return the status and the text that a path gives over HTTP; (0, "") where nobody answers."""
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return answer.status, answer.read().decode().strip()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode().strip()
    except OSError:
        return 0, ""


def test_a_worker_that_is_stopped_or_a_governor_makes_it_unhealthy_until_they_go_on(fresh_redis: str) -> None:
    port = free_port()
    environment = {"PORT": str(port)}
    with supervised("--pool", "slow", redis_url=fresh_redis, environment=environment) as running:
        wait_for_fault(running, "")
        assert health(running) == (0, "healthy")
        assert (probe(port, "/livez"), probe(port, "/readyz")) == ((200, "alive"), (200, "ready"))
        main = running.status()["pools"]["slow"]["pid"]
        os.kill(main, signal.SIGSTOP)
        wait_for_fault(running, "slow is not answering")
        assert health(running) == (1, "slow is not answering")
        assert (probe(port, "/livez"), probe(port, "/readyz")) == (
            (200, "alive"),
            (503, "slow is not answering"),
        )
        os.kill(main, signal.SIGCONT)
        wait_for_fault(running, "")
        assert health(running) == (0, "healthy")
        spawned = [line for line in running.lines if "spawned: 'governor'" in line]
        governor = int(spawned[-1].rsplit(" ", 1)[1])
        os.kill(governor, signal.SIGSTOP)
        wait_for_fault(running, "the governor has not been heard of")
        code, line = health(running)
        assert (code, "the governor has not been heard of" in line) == (1, True)
        assert probe(port, "/livez") == (0, "")
        os.kill(governor, signal.SIGCONT)
        wait_for_fault(running, "")
        assert health(running) == (0, "healthy")
        assert running.stop() == 0


@pytest.mark.slow
def test_a_worker_that_is_down_is_unhealthy(fresh_redis: str) -> None:
    with supervised("--pool", "slow", redis_url=fresh_redis) as running:
        wait_for_fault(running, "")
        assert health(running) == (0, "healthy")
        control = [
            sys.executable,
            "-m",
            "supervisor.supervisorctl",
            "-c",
            f"{running.runtime_dir}/supervisord.conf",
        ]
        subprocess.run([*control, "stop", "slow"], check=True, timeout=60)
        wait_for_fault(running, "slow is stopped")
        assert health(running) == (1, "slow is stopped")
        assert running.stop() == 0
