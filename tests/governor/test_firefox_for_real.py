"""A Firefox from the distribution, left running by a task."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from support.sending import sending_to
from support.supervised import supervised
from support.waiting import wait_for

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(FIREFOX is None, reason="there is no Firefox here"),
]


@pytest.fixture
def profile() -> Iterator[Path]:
    """A profile of the name that geckodriver gives it."""
    made = Path(tempfile.mkdtemp(prefix="rust_mozprofile"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def program(profile: Path, tmp_path: Path) -> str:
    """What starts a Firefox with that profile."""
    script = tmp_path / "start"
    script.write_text(f"#!/bin/sh\nexec {FIREFOX} --headless --profile {profile} about:blank\n")
    script.chmod(0o755)
    return str(script)


@pytest.fixture
def sender(fresh_redis: str) -> Iterator[Celery]:
    with sending_to(fresh_redis) as app:
        yield app


def firefox_processes(profile: Path) -> list[int]:
    """Return the processes that name the profile."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(profile).encode() in command:
                found.append(int(entry.name))
    return found


def test_a_firefox_that_a_finished_task_left_is_killed_counted_and_its_profile_removed(
    fresh_redis: str, sender: Celery, program: str, profile: Path
) -> None:
    with supervised("--pool", "slow", redis_url=fresh_redis) as running:
        running.wait_until_ready("slow")
        running.wait_for_line("watching slow")
        child, left = sender.send_task("sample_app.leave_process", (program,), queue="low").get(timeout=60)
        running.wait_for_line(f"reap leftovers of slow/{child}: killed")
        wait_for(lambda: not firefox_processes(profile), f"no Firefox is left of {left}", 20)
        counted = {"reaped": 1, "live": 0, "defunct": 0}
        wait_for(lambda: counted.items() <= running.status()["browsers"].items(), "it is counted", 20)
        wait_for(lambda: not profile.exists(), "its profile is removed", 30)
        assert sender.send_task("sample_app.nap", (0,), queue="low").get(timeout=30) == child
