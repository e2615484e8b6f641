"""The processes below another one, and their memory."""

import os
import subprocess
import sys
import time

from recyclery.observe.processes import read_process, with_memory
from recyclery.observe.snapshot import Process
from recyclery.sandbox.guard import descendants


def test_a_name_may_hold_brackets_and_spaces() -> None:
    fields = " ".join(["S", "7", "12", "12", *["0"] * 46])
    process = read_process(12, lambda _: f"12 (a (b) c) {fields}".encode())
    assert process is not None
    assert (process.pid, process.parent, process.state, process.name) == (12, 7, "S", "a (b) c")


def test_grandchildren_are_descendants() -> None:
    code = "import subprocess; subprocess.run(['sleep', '30'])"
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        names: list[str] = []
        while "sleep" not in names:
            names = [process.name for process in descendants(os.getpid())]
            time.sleep(0.01)
        assert child.pid in [process.pid for process in descendants(os.getpid())]
    finally:
        for process in descendants(child.pid):
            os.kill(process.pid, 9)
        child.kill()
        child.wait()


def test_a_child_that_nobody_reaped_is_defunct() -> None:
    child = subprocess.Popen(["true"])
    try:
        while not any(process.is_defunct for process in descendants(os.getpid()) if process.pid == child.pid):
            time.sleep(0.01)
    finally:
        child.wait()


def test_private_memory_counts_what_a_process_wrote() -> None:
    code = "import sys; held = b'x' * (64 << 20); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        amount = with_memory(Process(child.pid, 0, os.getpid(), 0, "S", "python")).anon_bytes
        child.communicate()
    assert 64 << 20 < amount < 128 << 20


def test_the_memory_of_a_process_that_is_gone_is_nothing() -> None:
    assert with_memory(Process(2**22 + 1, 0, 1, 0, "S", "gone")).anon_bytes == 0
