"""`recyclery top` in a real terminal, before a real supervisor."""

import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from celery import Celery

from support.redis_server import empty
from support.sending import sending_to
from support.supervised import Supervised, supervised
from support.waiting import wait_for as wait_for_a_while
from support.watched import Watched, watched

# A worker starts, and another one leaves: on a busy machine that takes its time.
wait_for = partial(wait_for_a_while, seconds=90)
TAKEN, GIVEN_BACK = b"\x1b[?1049h", b"\x1b[?1049l"


@pytest.fixture(scope="module")
def slow(redis_url: str) -> Iterator[Supervised]:
    """A supervisor with the slow pool up."""
    empty(redis_url)
    with supervised("--pool", "slow", redis_url=redis_url) as running:
        running.wait_until_ready("slow")
        yield running


@pytest.fixture
def task(slow: Supervised, redis_url: str, tmp_path: Path) -> Iterator[Celery]:
    """A task that runs until the test is over."""
    gate = tmp_path / "gate"
    with sending_to(redis_url) as sender:
        sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
        wait_for(Path(f"{gate}.begun").exists, "it runs")
        yield sender
    gate.touch()


def modes(watching: Watched) -> list[object]:
    """Return how the terminal is set."""
    return termios.tcgetattr(watching.terminal.theirs)


def shows(watching: Watched, text: str) -> bool:
    """Tell whether a text is on the screen now."""
    assert watching.process.poll() is None, watching.terminal.screen
    return text in watching.frame()


@pytest.mark.usefixtures("task")
def test_a_pool_is_seen_with_its_task_and_recycled_after_a_yes(slow: Supervised) -> None:
    with watched(slow.runtime_dir) as watching:
        wait_for(lambda: shows(watching, "sample_app.nap_until"), "the task is seen")
        assert "> slow" in watching.frame()
        before = slow.status()["pools"]["slow"]
        watching.terminal.type(b"r")
        wait_for(lambda: shows(watching, "recycle slow? "), "it asks first")
        watching.terminal.type(b"y")
        wait_for(lambda: shows(watching, "slow drains: sample_app.nap_until"), "the old one drains")
        wait_for(lambda: shows(watching, "replace slow: asked to"), "the reason is told")
        wait_for(lambda: shows(watching, f"slow: {other(before['slot'])}@"), "its outcome is told")
        assert slow.status()["pools"]["slow"]["slot"] == other(before["slot"])
        watching.terminal.type(b"b")
        wait_for(lambda: shows(watching, "reap? "), "it asks again")
        watching.terminal.type(b"y")
        wait_for(lambda: shows(watching, "nothing to reap: browsers in use: 0"), "it tells what came of it")


def other(slot: str) -> str:
    """Return the other slot of the pool."""
    return {"slow": "slow-b", "slow-b": "slow"}[slot]


@pytest.mark.usefixtures("task")
def test_a_governor_that_is_silent_is_told_of_and_one_that_comes_anew_knows_the_running_task(
    slow: Supervised,
) -> None:
    with watched(slow.runtime_dir) as watching:
        wait_for(lambda: shows(watching, "sample_app.nap_until"), "it is seen")
        governor = [line for line in slow.lines if "spawned: 'governor'" in line][-1].rsplit(" ", 1)[1]
        # One that is only killed may be back before it is missed.
        os.kill(int(governor), signal.SIGSTOP)
        wait_for(lambda: shows(watching, "governor has not answered for "), "it is silent")
        os.kill(int(governor), signal.SIGKILL)
        # Its word on how long the task has run is gone with the one before.
        wait_for(
            lambda: (
                re.search(r"sample_app\.nap_until +\d+ MiB", watching.frame())
                and not shows(watching, "NO NEWS")
            ),
            "it is back",
        )


def test_a_supervisor_that_is_not_there_is_waited_for_with_the_way_out(tmp_path: Path) -> None:
    with watched(tmp_path) as watching:
        wait_for(lambda: re.search(r"!! governor away, retrying \([1-9]", watching.frame()), "it goes on")
        assert "is `recyclery run` up" in " ".join(watching.frame().split())


def test_a_window_of_another_size_is_filled_at_once(slow: Supervised) -> None:
    with watched(slow.runtime_dir, columns=80, lines=24) as watching:
        wait_for(lambda: len(watching.frame().splitlines()) == 24, "it fills the window")
        watching.resize(30, 6)
        wait_for(lambda: len(watching.frame().splitlines()) == 6, "it fills the smaller one")
        assert max(map(len, watching.frame().splitlines())) <= 30


@pytest.mark.parametrize(
    ("ending", "code"),
    [(b"q", 0), (b"\x03", 0), (signal.SIGTERM, 143), (signal.SIGINT, 130)],
    ids=["q", "Ctrl-C", "TERM", "INT"],
)
def test_the_terminal_is_as_it_was_whatever_ends_it(slow: Supervised, ending: bytes | int, code: int) -> None:
    with watched(slow.runtime_dir) as watching:
        before = modes(watching)
        wait_for(lambda: shows(watching, "> slow"), "it is seen")
        assert modes(watching) != before
        if isinstance(ending, bytes):
            watching.terminal.type(ending)
        else:
            watching.process.send_signal(ending)
        wait_for(
            lambda: watching.terminal.shows(GIVEN_BACK) and watching.process.poll() is not None, "it ended"
        )
        assert (watching.process.returncode, modes(watching)) == (code, before)
        assert "Traceback" not in watching.terminal.screen


def test_without_colour_no_style_is_sent(slow: Supervised) -> None:
    with watched(slow.runtime_dir, environment={"NO_COLOR": "1"}) as watching:
        wait_for(lambda: shows(watching, "> slow"), "it is seen")
        assert not [
            part for part in watching.terminal.screen.split("\x1b[")[1:] if part.lstrip("0123456789;")[0] == "m"
        ]


def test_on_a_dumb_terminal_one_plain_frame_is_printed(slow: Supervised) -> None:
    with watched(slow.runtime_dir, environment={"TERM": "dumb"}) as watching:
        wait_for(lambda: watching.process.poll() is not None, "it ended")
        assert watching.process.returncode == 0
        assert "slow  running" in watching.terminal.screen
        assert "\x1b" not in watching.terminal.screen


def test_without_a_terminal_one_plain_frame_is_printed_or_why_there_is_none(
    slow: Supervised, tmp_path: Path
) -> None:
    def top(runtime_dir: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "recyclery", "top", "--once"],
            env={**os.environ, "RECYCLERY_RUNTIME_DIR": str(runtime_dir)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    done = top(slow.runtime_dir)
    assert (done.returncode, done.stderr) == (0, "")
    assert "slow  running" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    alone = top(tmp_path)
    assert (alone.returncode, alone.stdout) == (1, "")
    assert "no supervisor answers" in alone.stderr
