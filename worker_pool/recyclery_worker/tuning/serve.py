"""`python -m recyclery_worker.tuning.serve APP TASK [--args FILE] [--generate MODULE:FUNC] [--folder PATH]`.

Sends as ordered. A process of its own, for it imports the user's app. Takes orders on standard input and
answers each on standard output; the first answer comes unasked. When its standard input ends, the tuning has:
then all that this has in Redis, and its folder, are removed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import redis
from celery.app.utils import find_app

from recyclery_worker.tuning.isolation import keep_keys_apart
from recyclery_worker.tuning.messages import Answer, Order, Quit
from recyclery_worker.tuning.namespace import Space, own_space
from recyclery_worker.tuning.registry import renew, strike
from recyclery_worker.tuning.sender import Sender
from recyclery_worker.tuning.task_args import BadCalls, cycle_calls

# After so long without a key that came anew nobody writes any more.
QUIET_SECONDS = 3.0
GIVE_UP_SECONDS = 60.0


class Refused(Exception):
    """Nothing can be sent; the message says why."""


def find_task(app: Any, name: str) -> Any:
    """Return the app's task of that name; raises Refused."""
    if name in app.tasks:
        return app.tasks[name]
    known = sorted(task for task in app.tasks if not task.startswith("celery."))
    alike = [task for task in known if name in task or task.rpartition(".")[2] == name.rpartition(".")[2]]
    raise Refused(
        f"--task is {name!r}: the app has no such task; it has {', '.join(alike or known[:20]) or 'none'}"
    )


def prepare(options: argparse.Namespace, space: Space) -> Sender:
    """Import the app and connect; raises Refused."""
    try:
        app = find_app(options.app)
        app.loader.import_default_modules()
        app.finalize()
    except (Exception, SystemExit) as error:  # the app's own code may raise anything, or leave
        raise Refused(
            f"app is {options.app!r}: it cannot be imported: {type(error).__name__}: {error}"
        ) from None
    app.conf.task_always_eager = False
    with app.connection_for_write() as connection:
        if connection.transport.driver_type != "redis":
            raise Refused(
                f"the app's broker is {connection.transport.driver_type}: tuning needs Redis, where tasks can "
                "be kept apart from those in service; point the app at one"
            )
    task = find_task(app, options.task)
    calls = cycle_calls(options.args, options.generate)
    try:
        first = next(calls)
        check = getattr(task, "__header__", None)
        if check is not None and task.typing:
            check(*first.args, **first.kwargs)
    except BadCalls as error:
        raise Refused(str(error)) from None
    except TypeError as error:
        raise Refused(
            f"{task.name} cannot be called so: {error}; give its arguments with --args or --generate"
        ) from None
    try:
        return Sender(app, task, cycle_calls(options.args, options.generate), space)
    except Exception as error:  # kombu and redis raise errors of many kinds
        raise Refused(f"the app's broker at {connection.as_uri()} does not answer: {error}") from None


def serve(sender: Sender, answer: int) -> bool:
    """Follow orders until nobody is there to give any; tell whether we were told to quit."""
    decoder = msgspec.json.Decoder(Order)
    text = b""
    while True:
        readable, _, _ = select.select([0], [], [], sender.seconds_to_next())
        if readable:
            read = os.read(0, 1 << 20)
            if not read:
                return False
            *lines, text = (text + read).split(b"\n")
            for line in lines:
                order = decoder.decode(line)
                tell(answer, sender.follow(order))
                if isinstance(order, Quit):
                    return True
        sender.step()


def clean_up(sender: Sender, space: Space) -> None:
    """Remove everything, until nobody writes any more: the worker may outlive the tuning by a moment."""
    began = quiet = time.monotonic()
    while time.monotonic() - quiet < QUIET_SECONDS and time.monotonic() - began < GIVE_UP_SECONDS:
        try:
            removed = strike(sender.book, space)
        except redis.RedisError:
            # Away: what is left is found by the next tuning.
            removed = 1
        if removed:
            quiet = time.monotonic()
        time.sleep(0.2)


def tell(answer: int, what: Answer) -> None:
    """Print an answer; nobody may be there to read it."""
    with contextlib.suppress(BrokenPipeError):
        os.write(answer, msgspec.json.encode(what) + b"\n")


def main() -> int:
    """Send what is ordered."""
    parser = argparse.ArgumentParser()
    parser.add_argument("app")
    parser.add_argument("task")
    parser.add_argument("--args")
    parser.add_argument("--generate")
    parser.add_argument("--folder")
    options = parser.parse_args()
    space = own_space()
    assert space is not None  # noqa: S101  # whoever starts this names it
    sys.path.insert(0, str(Path.cwd()))
    # What the app's own modules print is not the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    keep_keys_apart(space)
    try:
        sender = prepare(options, space)
        renew(sender.book, space)
        tell(answer, Answer(cleaned=sender.clean_dead()))
    except Refused as error:
        tell(answer, Answer(error=str(error)))
        return 1
    told_to_quit = False
    try:
        told_to_quit = serve(sender, answer)
    except BadCalls as error:
        tell(answer, Answer(error=str(error)))
    except (
        Exception
    ) as error:  # kombu and redis raise errors of many kinds; an argument that cannot be sent, too
        tell(answer, Answer(error=f"no task can be sent: {type(error).__name__}: {error}"))
    finally:
        if not told_to_quit:
            clean_up(sender, space)
            if options.folder:
                shutil.rmtree(options.folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
