"""`recyclery health` beside real workers: what turns it, and what turns it back."""

import os
import signal
import subprocess
import sys
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

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
        wait_for(lambda: health(running)[0] == 0, "healthy", seconds=100)
        assert (probe(port, "/livez"), probe(port, "/readyz")) == ((200, "alive"), (200, "ready"))
        main = running.status()["pools"]["slow"]["pid"]
        os.kill(main, signal.SIGSTOP)
        wait_for(lambda: health(running) == (1, "slow is not answering"), "unhealthy", seconds=100)
        assert (probe(port, "/livez"), probe(port, "/readyz")) == (
            (200, "alive"),
            (503, "slow is not answering"),
        )
        os.kill(main, signal.SIGCONT)
        wait_for(lambda: health(running)[0] == 0, "healthy again", seconds=100)
        spawned = [line for line in running.lines if "spawned: 'governor'" in line]
        governor = int(spawned[-1].rsplit(" ", 1)[1])
        os.kill(governor, signal.SIGSTOP)
        wait_for(lambda: "the governor has not been heard of" in health(running)[1], "unhealthy", seconds=100)
        assert probe(port, "/livez") == (0, "")
        os.kill(governor, signal.SIGCONT)
        wait_for(lambda: health(running)[0] == 0, "healthy again", seconds=100)
        assert running.stop() == 0


def test_a_worker_that_is_down_is_unhealthy(fresh_redis: str) -> None:
    with supervised("--pool", "slow", redis_url=fresh_redis) as running:
        wait_for(lambda: health(running)[0] == 0, "healthy", seconds=100)
        control = [
            sys.executable,
            "-m",
            "supervisor.supervisorctl",
            "-c",
            f"{running.runtime_dir}/supervisord.conf",
        ]
        subprocess.run([*control, "stop", "slow"], check=True, timeout=60)
        wait_for(lambda: health(running) == (1, "slow is stopped"), "unhealthy", seconds=100)
        assert running.stop() == 0
