"""report: not a benchmark; the file that `scripts/bench all` writes, and the closing lines it is made of."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import psutil


class UnreadableReport(Exception):
    """This is no file of `scripts/bench all --json`; the message says what is wrong with it."""


class BoundRow(msgspec.Struct):
    """A bound as the closing line has it."""

    value: float
    bound: str
    holds: bool


class SampleRow(msgspec.Struct):
    """What a figure is the median of, and the interval that follows from it."""

    values: list[float]
    median: float
    low: float
    high: float
    coverage: float


class Closing(msgspec.Struct, kw_only=True):
    """What a benchmark ends with; older ones have no samples."""

    figures: dict[str, Any] = {}
    required: dict[str, BoundRow] = {}
    goal: dict[str, BoundRow] = {}
    samples: dict[str, SampleRow] = {}


class Entry(Closing, kw_only=True):
    """One benchmark's run: `result` is one of RESULTS, `load` that of 1, 5 and 15 minutes as it began."""

    result: str
    reason: str
    exit_code: int | None
    seconds: float
    load: list[float]


RESULTS = {
    "passed": "every required bound holds",
    "bound": "a required bound does not hold",
    "failed": "it ended with an error",
    "timeout": "it did not end in time",
    "cannot run": "something is missing here",
}


class Machine(msgspec.Struct):
    """Where all was measured."""

    cores: int
    memory_bytes: int
    kernel: str
    python: str
    celery: str


class Report(msgspec.Struct):
    """The file: `dirty` says whether the checkout differed from the commit."""

    date: str
    commit: str
    dirty: bool
    quick: bool
    interrupted: bool
    machine: Machine
    benchmarks: dict[str, Entry]


def begin_report(root: Path, quick: bool) -> Report:
    """Return a report on a checkout without any benchmark yet."""
    return Report(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=git(root, "rev-parse", "HEAD"),
        dirty=bool(git(root, "status", "--porcelain")),
        quick=quick,
        interrupted=False,
        machine=describe_machine(),
        benchmarks={},
    )


def describe_machine() -> Machine:
    """Return what this machine is."""
    try:
        celery = version("celery")
    except PackageNotFoundError:
        celery = ""
    return Machine(
        cores=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        kernel=platform.release(),
        python=platform.python_version(),
        celery=celery,
    )


def git(root: Path, *arguments: str) -> str:
    """Return what git says of a checkout; nothing where it is none."""
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def format_report(report: Report) -> str:
    """Return the file's text."""
    return json.dumps(msgspec.to_builtins(report), indent=1) + "\n"


def read_report(path: Path) -> Report:
    """Read a file back; raises UnreadableReport."""
    try:
        # Not msgspec's own decoder, for Python writes Infinity and NaN.
        return msgspec.convert(json.loads(path.read_text()), Report)
    except OSError as error:
        raise UnreadableReport(f"{path}: {error.strerror}") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise UnreadableReport(f"{path} is no file of `scripts/bench all --json`: {error}") from error


def read_closing(printed: str) -> Closing | None:
    """Return the last line of JSON that a benchmark printed; None where there is none."""
    for line in reversed(printed.splitlines()):
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict) and "benchmark" in document:
            try:
                return msgspec.convert(document, Closing)
            except msgspec.ValidationError:
                return None
    return None
