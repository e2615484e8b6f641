"""Processes that the kernel names as parts of a browser, and that carry a browser's arguments."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recyclery.observe.processes import read_process
from recyclery.observe.snapshot import Process
from support.waiting import wait_for

NAMED = "import ctypes,sys;ctypes.CDLL(None).prctl(15,sys.argv[1].encode())"
"""Python code that has the kernel call the process by its first argument (prctl(2), PR_SET_NAME)."""


@contextmanager
def running_as(name: str, *arguments: str, code: str = "") -> Iterator[Process]:
    """Run a process of that name with these arguments; `code` is what it does first."""
    waits = f"{NAMED};{code or 'pass'};print(flush=True);sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", waits, name, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as popen:
        try:
            assert popen.stdout is not None
            popen.stdout.readline()
            process = wait_for(lambda: read_process(popen.pid), "it runs")
            assert process.name == name
            yield process
        finally:
            popen.kill()


def make_folder(path: Path) -> Path:
    """Make a folder with something in it."""
    path.mkdir()
    (path / "Default").mkdir()
    return path
