"""Whichever part of a browser somebody kills, all of it is gone 2 s later, and nothing of anybody else's."""

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import Celery

from recyclery_worker.browser.driver import BrowserPair, find_browser
from support.started import started_by
from support.supervised import supervised
from support.waiting import is_alive, wait_for

pytestmark = pytest.mark.browser


@pytest.fixture
def temp() -> Iterator[Path]:
    """The temp folder of the supervisor and of a stranger; its path must be short, for Chrome's sockets."""
    with tempfile.TemporaryDirectory(prefix="rcy-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def stranger(pair: BrowserPair, temp: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a browser that no pool started, with files named as those of the pools' browsers are."""
    profile = temp / "org.chromium.Chromium.scoped_dir.strange"
    command = [str(pair.chrome), "--headless=new", "--no-sandbox", "--disable-gpu"]
    command += [f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    with subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(temp)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            wait_for((profile / "DevToolsActivePort").exists, "the stranger's browser is up")
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def session_in(folder: Path) -> dict[str, int]:
    """Return who is who in the session that a task has told of."""
    path = folder / "session"
    wait_for(path.exists, "a browser is open")
    told: dict[str, int] = json.loads(path.read_text())
    return told


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}


def everything_of(child: int, temp: Path, before: set[str]) -> list[object]:
    """Return what is there of a child's browser: processes, folders, shared memory."""
    files = [path for path in temp.iterdir() if path.name not in before]
    return [*started_by(child), *files]


@pytest.mark.parametrize("victim", ["child", "chromedriver", "browser"])
def test_nothing_of_a_browser_stays_when_a_part_of_it_was_killed(
    sender: Celery, fresh_redis: str, temp: Path, tmp_path: Path, victim: str
) -> None:
    pair = find_browser()
    variables = {"CELERY_WORKER_NAME": "slow", "TMPDIR": str(temp)}
    with stranger(pair, temp) as other, supervised(redis_url=fresh_redis, environment=variables) as running:
        running.wait_until_ready("slow")
        strangers, shared = {path.name for path in temp.iterdir()}, shared_memory()
        task = sender.send_task(
            "sample_app.hold_session",
            (str(pair.chrome), str(pair.chromedriver), str(tmp_path), 600),
            queue="low",
        )
        session = session_in(tmp_path)
        child = session["child"]
        assert len(started_by(child)) >= 8
        assert len({path.name for path in temp.iterdir()} - strangers) >= 2
        wait_for(lambda: running.status()["browsers"]["in_use"] == 1, "the governor has seen it")
        sender.control.revoke(task.id)  # Else it is run again.
        os.kill(session[victim], signal.SIGKILL)
        wait_for(lambda: not everything_of(child, temp, strangers), "all of it is gone")
        assert shared_memory() <= shared
        assert {path.name for path in temp.iterdir()} == strangers
        assert is_alive(other.pid)
        assert is_alive(child) == (victim != "child")
