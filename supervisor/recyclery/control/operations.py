"""`recyclery recycle`, `reap` and `set`: operations of the running supervisor."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recyclery.common.exit_codes import BAD_CONFIGURATION, WRONG_USAGE, fail
from recyclery.common.pool_state import PoolState
from recyclery.config.paths import find_runtime_dir
from recyclery.control.client import Declined, NoSupervisor, ask_governor

PROGRESS_SECONDS = 0.3
# A governor that died is restarted sooner, and continues the replacement.
GOVERNOR_AWAY_SECONDS = 60.0


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
