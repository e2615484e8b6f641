"""`recyclery recycle`: give a pool a new worker, and wait until that takes tasks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recyclery.common import exit_codes
from recyclery.common.pool_state import PoolState
from recyclery.config.paths import find_runtime_dir
from recyclery.control.client import Declined, NoSupervisor, ask_governor

LOOK_EVERY_SECONDS = 0.3
# A governor that died is back sooner, and goes on where the other one stopped.
GOVERNOR_AWAY_SECONDS = 60.0


class NotReplaced(Exception):
    """The old worker goes on; the message says why."""


def recycle(pool: str) -> int:
    """Replace a pool's worker, saying what happens; return 0 once the new one takes tasks, else 1."""
    try:
        for line in replace_worker(find_runtime_dir(os.environ), pool):
            print(line, flush=True)
    except (NoSupervisor, Declined, NotReplaced) as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return 1
    return 0


def replace_worker(directory: Path, pool: str) -> Iterator[str]:
    """Replace a pool's worker, yielding in words what happens until the new one takes tasks.

    Raises NoSupervisor, Declined or NotReplaced.
    """
    before = ask_governor(directory, "recycle", table=pool)
    yield f"{pool}: replacing {before['slot']} (pid {before['pid']})"
    said = ""
    while True:
        time.sleep(LOOK_EVERY_SECONDS)
        now = ask_patiently(directory, pool)
        if now["waits_for"] != said:
            said = now["waits_for"]
            yield f"{pool}: {said}"
        if now["state"] == PoolState.RUNNING and now["pid"] != before["pid"]:
            return
        if not now["going_on"]:
            reason = now["failure"] or f"{now['slot']} is {now['state']}; the supervisor's log says more"
            raise NotReplaced(f"{pool} was not replaced: {reason}")


def ask_patiently(directory: Path, pool: str) -> dict[str, Any]:
    """Ask how far it is; a governor that is away is waited for. Raises NoSupervisor or Declined."""
    deadline = time.monotonic() + GOVERNOR_AWAY_SECONDS
    while True:
        try:
            return ask_governor(directory, "recycling", table=pool)
        except NoSupervisor:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_EVERY_SECONDS)


def reap_now(*, strangers: bool) -> int:
    """Reap, of `strangers` too if asked; return 1 with a message when there is no supervisor to ask."""
    try:
        answer = ask_governor(find_runtime_dir(os.environ), "reap", strangers=strangers)
    except (NoSupervisor, Declined) as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return 1
    print(format_reaped(answer))
    return 0


def format_reaped(answer: dict[str, Any]) -> str:
    """Return a line for everything that was killed, else what is left alone."""
    lines = answer["killed"] or [f"nothing to reap: browsers in use: {answer['in_use']}"]
    if answer["strangers"]:
        lines = [*lines, f"left alone, as no pool started them: {answer['strangers']} (--strangers kills)"]
    return "\n".join(lines)


def set_values(table: str, assignments: list[str]) -> int:
    """Change what `key=value` texts say; return the exit code."""
    values = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip() or not value.strip():
            print(f"recyclery: {assignment!r} is not of the form key=value", file=sys.stderr)
            return exit_codes.WRONG_USAGE
        values[key.strip()] = value.strip()
    try:
        answer = ask_governor(find_runtime_dir(os.environ), "set", table=table, values=values)
    except NoSupervisor as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return 1
    except Declined as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return exit_codes.BAD_CONFIGURATION
    print(answer["done"])
    return 0
