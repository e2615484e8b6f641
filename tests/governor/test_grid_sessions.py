"""A browser elsewhere does not outlive the child that had it: with a real chromedriver as the remote end."""

import json
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from recyclery_worker.browser.driver import find_browser
from recyclery_worker.link import ChildReport, encode_message, now
from support.supervised import Supervised, supervised
from support.waiting import wait_for


@contextmanager
def chromedriver_at(port: int) -> Iterator[str]:
    """Run a chromedriver that a Grid could be; yield its address."""
    pair = find_browser()
    command = [str(pair.chromedriver), f"--port={port}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as driver:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: ask(f"{url}/status"), "chromedriver is up")
            yield url
        finally:
            os.killpg(driver.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def ask(url: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """Return what the remote end answers; None for an error."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as answer:
            document: dict[str, Any] = json.loads(answer.read())
            return document
    except urllib.error.URLError:
        return None


def open_session(url: str) -> str:
    """Open a session at a remote end and return its id."""
    options = {
        "binary": str(find_browser().chrome),
        "args": ["--headless=new", "--no-sandbox", "--disable-gpu"],
    }
    wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
    answer = ask(f"{url}/session", wanted)
    assert answer is not None
    return str(answer["value"]["sessionId"])


def report_sessions(running: Supervised, child: int, *sessions: str) -> None:
    """Say in a child's name that it has these sessions open."""
    start_ticks = int(Path(f"/proc/{child}/stat").read_bytes().rpartition(b")")[2].split()[19])
    report = ChildReport(
        pool="slow",
        pid=child,
        start_ticks=start_ticks,
        tasks_done=0,
        task_id="a",
        task_name="a",
        first_task_started=now(),
        last_task_ended=None,
        sent=now(),
        remote=list(sessions),
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(encode_message(report), str(running.runtime_dir / "governor.sock"))


def nap(sender: Celery, tmp_path: Path) -> str:
    """Have a task run until it is killed; return its id."""
    gate = tmp_path / "gate"
    result = sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
    wait_for(Path(f"{gate}.begun").exists, "the task runs")
    return str(result.id)


def child_of(running: Supervised) -> int:
    children = wait_for(lambda: running.status()["pools"]["slow"]["children"], "the governor knows the child")
    return int(children[0]["pid"])


@pytest.mark.browser
def test_a_dead_childs_session_elsewhere_is_ended_and_counted_and_nobody_elses(
    fresh_redis: str, sender: Celery, tmp_path: Path
) -> None:
    with chromedriver_at(free_port()) as url:
        variables = {"SELENIUM_REMOTE_URL": url.replace("http://", "http://me:secret@")}
        with supervised("--pool", "slow", redis_url=fresh_redis, environment=variables) as running:
            running.wait_until_ready("slow")
            sender.control.revoke(nap(sender, tmp_path))
            child = child_of(running)
            mine, other = open_session(url), open_session(url)
            report_sessions(running, child, mine)
            os.kill(child, signal.SIGKILL)
            running.wait_for_line(f"end Grid session {mine} of slow/{child}, which is dead; ended at 127.0.0.1")
            assert ask(f"{url}/session/{mine}/url") is None
            assert ask(f"{url}/session/{other}/url") is not None
            wait_for(lambda: running.status()["browsers"]["grid_ended"] == 1, "counted")
            assert "secret" not in running.output


@pytest.mark.slow
def test_a_remote_end_that_hangs_holds_up_no_tick_and_is_told_once(
    fresh_redis: str, sender: Celery, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        variables = {"SELENIUM_REMOTE_URL": f"http://127.0.0.1:{server.getsockname()[1]}"}
        with supervised("--pool", "slow", redis_url=fresh_redis, environment=variables) as running:
            running.wait_until_ready("slow")
            sender.control.revoke(nap(sender, tmp_path))
            child = child_of(running)
            report_sessions(running, child, "a1")
            os.kill(child, signal.SIGKILL)
            running.wait_for_line(f"slow/{child} exited unexpectedly", seconds=12)
            assert "Grid session" not in running.output
            running.wait_for_line("not done in 3 tries at 127.0.0.1", seconds=40)
            assert running.output.count("end Grid session") == 1
            assert running.status()["browsers"]["grid_ended"] == 0
