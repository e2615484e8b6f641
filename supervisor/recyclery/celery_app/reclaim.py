"""`recyclery reclaim`: lists or gives back the messages that dead workers hold, and what dead tunings left."""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

import msgspec

from recyclery.common.exit_codes import BAD_CONFIGURATION, fail
from recyclery.common.programs import run_apart
from recyclery.config.fields import BadConfiguration
from recyclery.config.sources import load_settings, read_command_line
from recyclery_worker.broker.connection import NOT_REDIS
from recyclery_worker.delivery.reclaim import OrphanedLease

# Importing the app, and the time after which a lease expires.
MODULE_SECONDS = 120.0


class CannotTell(Exception):
    """What dead workers hold cannot be read; the message says why."""


def find_orphaned_leases(app: str, *options: str) -> tuple[OrphanedLease, ...]:
    """Return the leases of dead workers in the Redis of an app; raises CannotTell.

    `app` is as `celery -A` takes it. With `--give-back` their messages go back to their queues.
    """
    answer = run_module("recyclery_worker.delivery.reclaim", app, *options)
    return msgspec.json.decode(answer, type=tuple[OrphanedLease, ...])


def find_dead_tunings(app: str, *options: str) -> tuple[str, ...]:
    """Return the tunings that were killed and left keys in the Redis of an app; raises CannotTell.

    With `--remove` these keys are removed.
    """
    answer = run_module("recyclery_worker.tuning.cleanup", app, *options)
    return msgspec.json.decode(answer, type=tuple[str, ...])


def run_module(module: str, app: str, *options: str) -> str:
    """Run a module in a child process, which may import Celery and the app; return the JSON list it prints."""
    command = [sys.executable, "-m", module, app, *options]
    try:
        done = run_apart(command, MODULE_SECONDS)
    except subprocess.TimeoutExpired:
        raise CannotTell(f"no answer within {MODULE_SECONDS:g} s") from None
    if done.returncode == NOT_REDIS:
        return "[]"
    if done.returncode != 0:
        raise CannotTell(done.stderr.strip() or f"it ended with {done.returncode}")
    return done.stdout


def reclaim_command(args: argparse.Namespace) -> int:
    """Give back what dead workers hold, or only list it; return 1 where it cannot be read."""
    try:
        app = load_settings(read_command_line(args), os.environ).app
        leases = find_orphaned_leases(app, *([] if args.list else ["--give-back"]))
        tunings = find_dead_tunings(app, *([] if args.list else ["--remove"]))
    except BadConfiguration as error:
        return fail(error, BAD_CONFIGURATION)
    except CannotTell as error:
        return fail(f"what dead workers of {app!r} hold cannot be told: {error}", 1)
    if args.json:
        document = {"forgotten": leases, "given_back": not args.list, "tunings": tunings}
        print(msgspec.json.encode(document).decode())
    else:
        print("\n".join(format_reclaimed(leases, tunings, only_list=args.list)))
    return 0


def format_reclaimed(
    leases: Sequence[OrphanedLease], tunings: Sequence[str], *, only_list: bool
) -> Iterator[str]:
    """Yield a line for each dead worker, or one that there is none, and for each dead tuning."""
    verb = "held" if only_list else "gave back"
    for lease in leases:
        yield f"{verb} {lease.messages} of {lease.node} (pid {lease.pid}), which is dead"
    if not leases:
        yield "no dead worker holds anything"
    for name in tunings:
        yield f"{'left' if only_list else 'removed'} by a tuning that was killed: {name}"
