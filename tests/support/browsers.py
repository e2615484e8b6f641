"""What a browser has on this machine, found without the code under test."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from selenium import webdriver


class Session:
    """What this very session has on this machine, found without the code under test."""

    def __init__(self, profile: Path) -> None:
        self.profile = profile

    def processes(self) -> dict[int, str]:
        """Map the PIDs that bear the profile's random name to the starts of their command lines."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                text = command + (folder / "environ").read_bytes()
                if self.profile.name.encode() in text:
                    found[int(folder.name)] = command.replace(b"\0", b" ")[:80].decode()
        return found

    def browser_pid(self) -> int:
        [pid] = [
            pid
            for pid, command in self.processes().items()
            if "--type=" not in command and "crashpad" not in command and "chromedriver" not in command
        ]
        return pid


def open_session(driver: webdriver.Chrome) -> Session:
    return Session(Path(driver.capabilities["chrome"]["userDataDir"]))


def defunct_children() -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state == "Z" and int(parent) == os.getpid():
                found.append(int(stat.parent.name))
    return found


def assert_nothing_left(session: Session) -> None:
    assert session.processes() == {}
    assert defunct_children() == []
    assert not session.profile.exists()


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
