"""Kills processes by pidfd, after a check of their start time: never one that reuses a pid."""

import asyncio
import os
import signal
from collections.abc import Iterable

from recyclery.act.cleanup import find_session_files, remove_all
from recyclery.observe.processes import read_process, read_processes
from recyclery.observe.snapshot import Owner, Process

GONE_SECONDS = 1.5
GONE_POLL_SECONDS = 0.02


async def kill_processes(processes: Iterable[Process]) -> list[Process]:
    """Kill the processes and what they start meanwhile, and remove the browsers' throw-away files.

    Returns those still there after GONE_SECONDS (in uninterruptible sleep, or without permission to kill).
    """
    doomed = {(process.pid, process.start_ticks): process for process in processes}
    files = await asyncio.to_thread(find_session_files, [process.pid for process in doomed.values()])
    for process in doomed.values():
        signal_process(process, signal.SIGKILL)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + GONE_SECONDS
    while left := [process for process in doomed.values() if is_alive(process)]:
        if loop.time() > deadline:
            break
        for late in [found for found in read_processes() if found.parent in {gone.pid for gone in left}]:
            if doomed.setdefault((late.pid, late.start_ticks), late) is late:
                signal_process(late, signal.SIGKILL)
        await asyncio.sleep(GONE_POLL_SECONDS)
    await asyncio.to_thread(remove_all, files)
    return left


def signal_process(process: Process | Owner, signum: int) -> bool:
    """Signal this very process; return whether it was there."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError:
        # An old kernel or a strict seccomp profile has no pidfd: check, then signal at once.
        pidfd = None
    try:
        if not is_alive(process):
            return False
        if pidfd is None:
            os.kill(process.pid, signum)
        else:
            signal.pidfd_send_signal(pidfd, signum)
    except OSError:
        return False
    finally:
        if pidfd is not None:
            os.close(pidfd)
    return True


def is_alive(process: Process | Owner) -> bool:
    """Return whether this very process is there and not defunct."""
    found = read_process(process.pid)
    return found is not None and found.start_ticks == process.start_ticks and not found.is_defunct
