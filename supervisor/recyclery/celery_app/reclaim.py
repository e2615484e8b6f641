"""`recyclery reclaim`: what dead workers held and nobody has given back, and giving it back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import msgspec

from recyclery.common import exit_codes
from recyclery.config.fields import BadConfiguration
from recyclery.config.sources import CommandLine, load_settings
from recyclery_worker.broker.connection import NOT_REDIS
from recyclery_worker.delivery.reclaim import OrphanedLease

# Importing the app, and a lease's time.
WAIT_SECONDS = 120.0


class CannotTell(Exception):
    """What is forgotten cannot be told; the message says why."""


def find_forgotten(app: str) -> tuple[OrphanedLease, ...]:
    """Return what is forgotten in the Redis of an app, named as `celery -A` takes it; raises CannotTell."""
    return ask(app)


def give_back(app: str) -> tuple[OrphanedLease, ...]:
    """Give it back and return what it was; raises CannotTell."""
    return ask(app, "--give-back")


def find_tunings(app: str) -> tuple[str, ...]:
    """Return the tunings that were killed and left something in the Redis of an app; raises CannotTell."""
    return ask_tunings(app)


def remove_tunings(app: str) -> tuple[str, ...]:
    """Remove what they left, and return them; raises CannotTell."""
    return ask_tunings(app, "--remove")


def ask(app: str, *options: str) -> tuple[OrphanedLease, ...]:
    """Have the workers that are dead looked for."""
    answer = ask_module("recyclery_worker.delivery.reclaim", app, *options)
    return msgspec.json.decode(answer, type=tuple[OrphanedLease, ...])


def ask_tunings(app: str, *options: str) -> tuple[str, ...]:
    """Have the tunings that are dead looked for."""
    answer = ask_module("recyclery_worker.tuning.cleanup", app, *options)
    return msgspec.json.decode(answer, type=tuple[str, ...])


def ask_module(module: str, app: str, *options: str) -> str:
    """Have a process of its own look, which may import Celery and the app; return its JSON list."""
    command = [sys.executable, "-m", module, app, *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise CannotTell(f"no answer within {WAIT_SECONDS:g} s") from None
    if done.returncode == NOT_REDIS:
        return "[]"
    if done.returncode != 0:
        raise CannotTell(done.stderr.strip() or f"it ended with {done.returncode}")
    return done.stdout


def reclaim_forgotten(line: CommandLine, *, only_list: bool, as_json: bool) -> int:
    """Give back what is forgotten, or only list it; return 1 when that cannot be told."""
    try:
        settings = load_settings(line, os.environ)
    except BadConfiguration as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return exit_codes.BAD_CONFIGURATION
    try:
        found = find_forgotten(settings.app) if only_list else give_back(settings.app)
        tunings = find_tunings(settings.app) if only_list else remove_tunings(settings.app)
    except CannotTell as error:
        print(f"recyclery: what dead workers of {settings.app!r} hold cannot be told: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(
            msgspec.json.encode({"forgotten": found, "given_back": not only_list, "tunings": tunings}).decode()
        )
    else:
        print(
            "\n".join([*describe(found, only_list=only_list), *describe_tunings(tunings, only_list=only_list)])
        )
    return 0


def describe(found: Sequence[OrphanedLease], *, only_list: bool) -> list[str]:
    """Return a line for each dead worker, or one that there is none."""
    if not found:
        return ["nothing is forgotten"]
    verb = "held" if only_list else "gave back"
    return [f"{verb} {each.messages} of {each.node} (pid {each.pid}), which is dead" for each in found]


def describe_tunings(names: Sequence[str], *, only_list: bool) -> list[str]:
    """Return a line for each tuning that was killed."""
    verb = "there is" if only_list else "removed"
    return [f"{verb} what a tuning that was killed had left ({name})" for name in names]
