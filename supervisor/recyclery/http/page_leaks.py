"""The leak report for the page, made by a `recyclery leaks` process.

Evaluating thousands of runs takes seconds, and more memory than the governor may use. So it runs in a process
of its own, at low priority, only if there is memory for it, and as the OOM killer's first choice.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from recyclery.config import secrets
from recyclery.control.status_schema import ContainerStatus

DEADLINE_SECONDS = 60.0
# It takes 38 MiB for 8000 runs in two pools (scripts/bench history); there may be more pools.
NEEDED_BYTES = 64 << 20
MAX_REPORT_BYTES = 1 << 20
MAX_ERROR_BYTES = 1 << 10
REPORT_NICENESS = 10
OOM_SCORE_ADJ = "1000"


class Leaks(msgspec.Struct):
    """The report as `recyclery leaks --json` prints it, and when it was made; or why there is none."""

    at: float
    report: msgspec.Raw | None = None
    problem: str = ""


def find_no_room(container: ContainerStatus) -> str | None:
    """Return why the report is not made now; None if there is memory for it."""
    if container.floor_bytes + NEEDED_BYTES <= container.high_bytes:
        return None
    return "Too little memory is free to make this report now; trying again."


async def run_leaks_report(history: Path) -> Leaks:
    """Make the report."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "recyclery", "leaks", "--json", "--history", str(history)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name not in secrets.ALL},
        limit=MAX_REPORT_BYTES,
    )
    try:
        lower_priority(process.pid)
        async with asyncio.timeout(DEADLINE_SECONDS):
            printed = await read_all(process)
            if printed is None:
                return Leaks(time.time(), problem="The report is too long for a page: see `recyclery leaks`.")
            error_output = await process.stderr.read(MAX_ERROR_BYTES) if process.stderr else b""
            code = await process.wait()
    except TimeoutError:
        return Leaks(time.time(), problem=f"The report took longer than {DEADLINE_SECONDS:g} s.")
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if code != 0:
        return Leaks(time.time(), problem=error_output.decode(errors="replace").strip())
    return Leaks(time.time(), report=msgspec.Raw(printed))


async def read_all(process: asyncio.subprocess.Process) -> bytes | None:
    """Return the output of a process; None if it is too long."""
    assert process.stdout is not None  # noqa: S101  # as it was started
    printed = b""
    while piece := await process.stdout.read(1 << 16):
        printed += piece
        if len(printed) > MAX_REPORT_BYTES:
            return None
    return printed


def lower_priority(pid: int) -> None:
    """Give a process the lowest priority and make it the first choice of the OOM killer."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, REPORT_NICENESS)
        Path(f"/proc/{pid}/oom_score_adj").write_text(OOM_SCORE_ADJ)
