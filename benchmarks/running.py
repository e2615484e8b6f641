"""running: not a benchmark; runs the benchmarks of a checkout, and ends what they started."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec
import psutil

from benchmarks.contract import CANNOT_RUN
from benchmarks.report import Closing, Entry, git, read_closing

ROOT = Path(__file__).parents[1]
INTERRUPTED = 130
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
POLL_SECONDS = 0.5
# Benchmarks end their workers and supervisors on the way out.
END_SECONDS = 30.0
LEFT_SECONDS = 2.0
# --quick is to take less than a minute, and the longest of the others takes hours.
QUICK_SECONDS, FULL_SECONDS = 15 * 60.0, 8 * 3600.0
SETUP_SECONDS = 30 * 60.0
REASON_LINES, REASON_CHARACTERS = 5, 600
RUNNERS = ("all", "compare")


def find_benchmarks(root: Path) -> list[str]:
    """Return the names of a checkout's benchmarks: a module that is none says so in its first line."""
    found = []
    for path in sorted((root / "benchmarks").glob("[a-z]*.py")):
        with path.open() as file:
            if "not a benchmark" not in file.readline() and path.stem not in RUNNERS:
                found.append(path.stem)
    return found


def run_benchmark(root: Path, name: str, options: Sequence[str], *, echo: bool = False) -> Entry:
    """Run `scripts/bench NAME` of a checkout to its end; `echo` shows on stderr what it prints meanwhile."""
    load, began = list(os.getloadavg()), time.monotonic()
    most_seconds = QUICK_SECONDS if "--quick" in options else FULL_SECONDS
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        exit_code = run(root, ["scripts/bench", name, *options], most_seconds, (out, err), echo=echo)
        printed, said = (read_from(file, 0).decode(errors="replace") for file in (out, err))
    closing = read_closing(printed)
    return Entry(
        **msgspec.structs.asdict(closing or Closing()),
        result=name_result(exit_code, closing),
        reason="" if exit_code == 0 else shorten(said) or shorten(printed),
        exit_code=exit_code,
        seconds=round(time.monotonic() - began, 1),
        load=[round(value, 2) for value in load],
    )


def set_up(root: Path) -> None:
    """Have a checkout install what its benchmarks need, so that no run waits for it; a failure shows there."""
    if (root / "scripts/setup").exists():
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            run(root, ["scripts/setup", "demo"], SETUP_SECONDS, (out, err), echo=True)


def run(
    root: Path, command: Sequence[str], most_seconds: float, files: tuple[IO[bytes], IO[bytes]], *, echo: bool
) -> int | None:
    """Run a checkout's command; return its exit code, None where it took too long and was ended."""
    process = subprocess.Popen(
        command,
        cwd=root,
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        stdout=files[0],
        stderr=files[1],
        # Ctrl-C comes to us alone, and we end it in our own time.
        start_new_session=True,
    )
    try:
        return wait(process, time.monotonic() + most_seconds, files if echo else ())
    finally:
        end(process)


def child_environment() -> dict[str, str]:
    """Return the environment without what would have a checkout import another one's code."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}


def wait(process: subprocess.Popen[bytes], deadline: float, shown: Sequence[IO[bytes]]) -> int | None:
    """Return the exit code, None where the deadline passes first; show what is added to the files meanwhile."""
    places = [0] * len(shown)
    while True:
        try:
            exit_code: int | None = process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            exit_code = None
        for number, file in enumerate(shown):
            added = read_from(file, places[number])
            whole = added[: added.rfind(b"\n") + 1]
            places[number] += len(whole)
            for line in whole.decode(errors="replace").splitlines():
                if not line.startswith('{"benchmark"'):
                    say(f"    {line}")
        if exit_code is not None or time.monotonic() > deadline:
            return exit_code


def read_from(file: IO[bytes], offset: int) -> bytes:
    """Return a file's content from there on; its position is the child's too, and stays."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size - offset, offset)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a benchmark that still runs as Ctrl-C would, and kill what is left of it after a while."""
    if process.poll() is not None:
        return
    started = psutil.Process(process.pid).children(recursive=True)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    # A second Ctrl-C ends the wait.
    with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        process.wait(END_SECONDS)
    process.kill()
    process.wait()
    _, left = psutil.wait_procs(started, timeout=LEFT_SECONDS)
    for child in left:
        with suppress(psutil.Error):
            child.kill()
    psutil.wait_procs(left, timeout=LEFT_SECONDS)


def name_result(exit_code: int | None, closing: Closing | None) -> str:
    """Return which of RESULTS an end is."""
    if exit_code is None:
        return "timeout"
    if exit_code == CANNOT_RUN:
        return "cannot run"
    if closing is None:
        return "failed"
    if exit_code == 0:
        return "passed"
    return "failed" if all(bound.holds for bound in closing.required.values()) else "bound"


def shorten(printed: str) -> str:
    """Return the last lines."""
    lines = [line.rstrip() for line in printed.splitlines() if line.strip()]
    return "\n".join(lines[-REASON_LINES:])[-REASON_CHARACTERS:]


def say(line: str) -> None:
    """Tell how far it is, apart from the table."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt for each signal that ends us, also where a shell had us ignore Ctrl-C."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore those signals, and have what is started meanwhile ignore them."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def checkout(root: Path, commit: str) -> Iterator[Path]:
    """Check a commit out in a worktree of its own, which goes with the block."""
    folder = Path(tempfile.mkdtemp(prefix="rcb-"))
    tree = folder / commit[:9]
    try:
        subprocess.run(
            ["git", "-C", str(root), "worktree", "add", "--quiet", "--detach", str(tree), commit], check=True
        )
        yield tree
    finally:
        with uninterrupted():
            shutil.rmtree(folder, ignore_errors=True)
            git(root, "worktree", "prune")
