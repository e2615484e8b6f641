"""Kills processes, never a stranger: a process is held by pidfd and its start checked before the signal."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable

from recyclery.act.cleanup import find_session_files, remove_all
from recyclery.observe.processes import list_processes, read_process
from recyclery.observe.snapshot import Owner, Process
from recyclery_worker.link import COLLECT_SIGNAL

GONE_SECONDS = 1.5
GONE_POLL_SECONDS = 0.02


async def kill_processes(processes: Iterable[Process]) -> list[Process]:
    """Kill the processes and what they start meanwhile, and remove what was the browsers' own on disk.

    Returns those still there after GONE_SECONDS (in the kernel's hands, or not ours to kill).
    """
    doomed = {(process.pid, process.start_ticks): process for process in processes}
    remains = await asyncio.to_thread(find_session_files, [process.pid for process in doomed.values()])
    for process in doomed.values():
        kill_process(process)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + GONE_SECONDS
    while left := [process for process in doomed.values() if is_alive(process)]:
        if loop.time() > deadline:
            break
        for late in [found for found in list_processes() if found.parent in {gone.pid for gone in left}]:
            if doomed.setdefault((late.pid, late.start_ticks), late) is late:
                kill_process(late)
        await asyncio.sleep(GONE_POLL_SECONDS)
    await asyncio.to_thread(remove_all, remains)
    return left


def kill_process(process: Process) -> bool:
    """Send SIGKILL if the pid still names this very process; tell whether it did."""
    return signal_process(process.pid, process.start_ticks, signal.SIGKILL)


def signal_process(pid: int, start_ticks: int, signum: int) -> bool:
    """Signal the process that has this pid and start, holding it meanwhile; tell whether it was there."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except OSError:
        # An old kernel or a strict seccomp profile has no pidfd: check, then signal, with nothing between.
        pidfd = None
    try:
        found = read_process(pid)
        if found is None or found.start_ticks != start_ticks or found.is_defunct:
            return False
        if pidfd is None:
            os.kill(pid, signum)
        else:
            signal.pidfd_send_signal(pidfd, signum)
    except OSError:
        return False
    finally:
        if pidfd is not None:
            os.close(pidfd)
    return True


def signal_reap(owner: Owner) -> bool:
    """Send a pool child the signal at which it collects its ended browsers; tell whether it was there."""
    return signal_process(owner.pid, owner.start_ticks, COLLECT_SIGNAL)


def is_alive(process: Process) -> bool:
    """Tell whether this very process is there and not defunct."""
    found = read_process(process.pid)
    return found is not None and found.start_ticks == process.start_ticks and not found.is_defunct
