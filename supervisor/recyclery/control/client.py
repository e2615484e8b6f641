"""Asks the running supervisor: any one command, and `recyclery status`, `recycle`, `reap` and `set`."""

import argparse
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from recyclery.common.exit_codes import BAD_CONFIGURATION, WRONG_USAGE, fail
from recyclery.common.pool_state import PoolState
from recyclery.common.units import format_mib as mib
from recyclery.config.paths import find_runtime_dir
from recyclery.control.server import ASK_SECONDS, control_socket
from recyclery.control.status_schema import BrowserStatus, Status, describe_handover

PROGRESS_SECONDS = 0.3
# A governor that died is restarted sooner, and continues the replacement.
GOVERNOR_AWAY_SECONDS = 60.0


class NoSupervisor(Exception):
    """Nobody answers on the control socket; the message has its path."""


class Declined(Exception):
    """The supervisor refused a command or failed in it; the message says why."""


def ask_governor(runtime_dir: Path, command: str, **arguments: Any) -> dict[str, Any]:
    """Return the answer to one command; raises NoSupervisor or Declined."""
    path = control_socket(runtime_dir)
    request = json.dumps({"command": command, **arguments})
    try:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(2 * ASK_SECONDS)
            control.connect(str(path))
            control.sendall(request.encode() + b"\n")
            with control.makefile("rb") as answer:
                document: dict[str, Any] = json.loads(answer.readline())
    except (OSError, ValueError) as error:
        raise NoSupervisor(
            f"no supervisor answers on {path} ({error}): is `recyclery run` up, "
            "and RECYCLERY_RUNTIME_DIR the same here as there?"
        ) from None
    if "error" in document:
        raise Declined(document["error"])
    return document


def print_status(args: argparse.Namespace) -> int:
    """Print the status; return 1 with a message without a supervisor."""
    try:
        document = ask_governor(find_runtime_dir(os.environ), "status")
    except (NoSupervisor, Declined) as error:
        return fail(error, 1)
    print(json.dumps(document, indent=2) if args.json else format_status(document))
    return 0


def format_status(document: dict[str, Any]) -> str:
    """Return the document as a page of at most 80 columns."""
    status = msgspec.convert(document, Status)
    container, parked = status.container, status.tasks.parked
    lines = [
        f"memory    {mib(container.floor_bytes)} of {mib(container.limit_bytes)} cannot be reclaimed "
        f"({container.floor_bytes / container.limit_bytes:.0%})",
        f"          usage {mib(container.usage_bytes)}, working set {mib(container.working_set_bytes)}, "
        f"OOM kills {container.oom_kills}",
        f"          read from {container.source}",
        *format_browsers(status.browsers),
        *([f"parked    {parked} after repeated deaths: `recyclery parked list`"] if parked else []),
    ]
    for name, pool in status.pools.items():
        depth = "unknown" if pool.queue_depth is None else pool.queue_depth
        recycles = ", ".join(f"{count} {reason}" for reason, count in pool.recycles.items()) or "none"
        lines += [
            "",
            f"{name}  {pool.state}, {','.join(pool.queues)}, {depth} waiting",
            f"  concurrency {pool.concurrency}, {pool.max_tasks_per_child} tasks per child; "
            f"recycles: {recycles}",
        ]
        lines += [f"  {text}" for text in describe_handover(pool)]
        lines += [
            f"  {child.pid:>8} {mib(child.pss_bytes):>9} {child.tasks_done:>5} done "
            f"{child.age_seconds:>7.0f} s  {(child.task or 'idle')[-38:]}"
            for child in pool.children
        ]
    return "\n".join(lines)


def format_browsers(browsers: BrowserStatus) -> list[str]:
    """Return the browsers' lines: those in use and reaped, and any that need attention."""
    kept = f" ({browsers.kept} kept for next tasks)" if browsers.kept else ""
    lines = [f"browsers  {browsers.in_use} in use{kept}, {browsers.reaped} reaped so far"]
    wrong = {
        "orphaned": browsers.orphans,
        "left over": browsers.leftovers,
        "runaway": browsers.runaway,
        "defunct": browsers.defunct,
        "strangers": browsers.strangers,
    }
    if any(wrong.values()):
        lines.append(f"          {', '.join(f'{number} {kind}' for kind, number in wrong.items() if number)}")
    if browsers.grid_ended:
        lines.append(f"          {browsers.grid_ended} sessions of dead children ended on the Grid")
    return lines


def recycle(args: argparse.Namespace) -> int:
    """Replace a pool's worker and print the progress; return 0 once the new one takes tasks, else 1."""
    try:
        for line in replace_worker(find_runtime_dir(os.environ), args.pool):
            print(line, flush=True)
    except (NoSupervisor, Declined) as error:
        return fail(error, 1)
    return 0


def replace_worker(directory: Path, pool: str) -> Iterator[str]:
    """Replace a pool's worker, yielding lines about the progress until the new one takes tasks.

    Raises NoSupervisor, or Declined where the old worker goes on.
    """
    before = ask_governor(directory, "recycle", table=pool)
    yield f"{pool}: replacing {before['slot']} (pid {before['pid']})"
    reported = ""
    while True:
        time.sleep(PROGRESS_SECONDS)
        now = ask_for_progress(directory, pool)
        if now["waits_for"] != reported:
            reported = now["waits_for"]
            yield f"{pool}: {reported}"
        if now["state"] == PoolState.RUNNING and now["pid"] != before["pid"]:
            return
        if not now["going_on"]:
            reason = now["failure"] or f"{now['slot']} is {now['state']}; the supervisor's log says more"
            raise Declined(f"{pool} was not replaced: {reason}")


def ask_for_progress(directory: Path, pool: str) -> dict[str, Any]:
    """Return the progress, retrying while the governor is away. Raises NoSupervisor or Declined."""
    deadline = time.monotonic() + GOVERNOR_AWAY_SECONDS
    while True:
        try:
            return ask_governor(directory, "recycling", table=pool)
        except NoSupervisor:
            if time.monotonic() > deadline:
                raise
            time.sleep(PROGRESS_SECONDS)


def reap(args: argparse.Namespace) -> int:
    """Kill browsers that no task owns; return 1 with a message without a supervisor."""
    try:
        answer = ask_governor(find_runtime_dir(os.environ), "reap", strangers=args.strangers)
    except (NoSupervisor, Declined) as error:
        return fail(error, 1)
    print(format_reaped(answer))
    return 0


def format_reaped(answer: dict[str, Any]) -> str:
    """Return a line for everything that was killed, else what is left alone."""
    lines = answer["killed"] or [f"nothing to reap: browsers in use: {answer['in_use']}"]
    if answer["strangers"]:
        lines = [*lines, f"left alone, as no pool started them: {answer['strangers']} (--strangers kills)"]
    return "\n".join(lines)


def set_values(args: argparse.Namespace) -> int:
    """Change settings by their `key=value` arguments; return the exit code."""
    values = {}
    for assignment in args.values:
        key, _, value = (part.strip() for part in assignment.partition("="))
        if not key or not value:
            return fail(f"{assignment!r} is not of the form key=value", WRONG_USAGE)
        values[key] = value
    try:
        answer = ask_governor(find_runtime_dir(os.environ), "set", table=args.table, values=values)
    except NoSupervisor as error:
        return fail(error, 1)
    except Declined as error:
        return fail(error, BAD_CONFIGURATION)
    print(answer["done"])
    return 0
