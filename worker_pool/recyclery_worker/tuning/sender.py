"""`python -m recyclery_worker.tuning.sender APP TASK [--args FILE] [--generate MODULE:FUNC] [--folder PATH]`.

Sends the tasks of a tuning as ordered: as many as are taken, or each at its time. A process of its own, for it
imports the user's app. Takes orders on standard input and answers each on standard output; the first answer
comes unasked. When its standard input ends, the tuning has: then all that this has in Redis, and its folder,
are removed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import redis
from celery import Task
from celery.app.utils import find_app
from kombu import Queue

from recyclery_worker.broker.connection import BOUNDED
from recyclery_worker.compat import describe_missing, missing
from recyclery_worker.delivery.registry import Book, open_book
from recyclery_worker.link import now
from recyclery_worker.tuning.cleanup import RENEW_SECONDS, renew, strike, strike_dead
from recyclery_worker.tuning.isolation import keep_keys_apart
from recyclery_worker.tuning.messages import (
    Answer,
    Arrive,
    Fill,
    Order,
    Quit,
    Rest,
    Space,
    Sweep,
    own_space,
    remove_keys,
)
from recyclery_worker.tuning.task_log import Write, open_marks


class Call(NamedTuple):
    """Arguments of one call."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = MappingProxyType({})


class BadCalls(Exception):
    """The calls cannot be had; the message says why and what is wanted."""


WANTED = 'it must be a list of arguments, or {"args": [...], "kwargs": {...}}'


def read_call(value: Any, where: str) -> Call:
    """Return a call from a list or a table; raises BadCalls."""
    if isinstance(value, list | tuple):
        return Call(tuple(value))
    if isinstance(value, dict) and value.keys() <= {"args", "kwargs"}:
        args, kwargs = value.get("args", ()), value.get("kwargs", {})
        if isinstance(args, list | tuple) and isinstance(kwargs, dict):
            return Call(tuple(args), kwargs)
    raise BadCalls(f"{where} is {str(value)[:80]!r}: {WANTED}")


def read_file(path: Path) -> list[Call]:
    """Return the calls in a file of JSON lines; raises BadCalls."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadCalls(f"--args {path}: {getattr(error, 'strerror', None) or error}") from None
    calls = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"--args {path}, line {number}"
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise BadCalls(f"{where} is not JSON ({error.msg}): {WANTED}") from None
            calls.append(read_call(value, where))
    if not calls:
        raise BadCalls(f"--args {path} is empty: one JSON value in each line; {WANTED}")
    return calls


def find_generator(name: str) -> Callable[[], Iterable[Any]]:
    """Return what yields calls, by MODULE:NAME of a function or of something to go through; raises BadCalls."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise BadCalls(f"--generate is {name!r}: it must be MODULE:FUNC, as in app.samples:scrapes")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # the module's own code may raise anything, or leave
        raise BadCalls(f"--generate {name}: {type(error).__name__}: {error}") from None
    return found if callable(found) else lambda: found


def cycle_generated(name: str) -> Iterator[Call]:
    """Yield what a generator yields, and begin anew when it is through; raises BadCalls."""
    begin = find_generator(name)
    while True:
        count = 0
        for count, value in enumerate(begin(), 1):
            yield read_call(value, f"--generate {name}: the value number {count}")
        if not count:
            raise BadCalls(f"--generate {name} yields nothing")


def cycle_calls(path: str | None, generator: str | None) -> Iterator[Call]:
    """Yield calls without end: from a file, by a generator, or without arguments; raises BadCalls."""
    if generator:
        yield from cycle_generated(generator)
    calls = read_file(Path(path)) if path else [Call()]
    while True:
        yield from calls


STEP_SECONDS = 0.02
# So often the sink is emptied: what tasks send must not fill the user's Redis.
DRAIN_SECONDS = 0.5


class Sender:
    """Sends the tasks of one tuning."""

    def __init__(self, app: Any, task: Any, calls: Iterator[Call], space: Space) -> None:
        self._app = app
        self._task = task
        self._calls = calls
        self._space = space
        self._queue = Queue(space.queue, routing_key=space.queue)
        self._number = 0
        self._write: Write | None = None
        self._least = 0
        self._due: list[float] = []
        self._waiting = 0
        self._sent_by_tasks = 0
        self._renewed = self._drained = 0.0
        connection = app.connection_for_write(transport_options=BOUNDED)
        connection.connect()
        self._channel = connection.default_channel
        # The user's own prefix alone: the registry is there for all tunings.
        book = open_book(self._channel)
        self.book = Book(book.client, book.prefix.removesuffix(space.prefix))

    def clean_dead(self) -> list[str]:
        """Remove what dead tunings left; return their names."""
        return [space.name for space in strike_dead(self.book)]

    def follow(self, order: Order) -> Answer:
        """Do as told."""
        match order:
            case Fill(marks, least):
                self._write, self._least, self._due = open_marks(Path(marks)), least, []
                self._waiting = self._sent_by_tasks = 0
            case Arrive(marks, due):
                self._write, self._least, self._due = open_marks(Path(marks)), 0, sorted(due, reverse=True)
                self._sent_by_tasks = 0
            case Rest():
                self._least, self._due = 0, []
                self.drain()
                return Answer(waiting=self._channel._size(self._space.queue), sent_by_tasks=self._sent_by_tasks)
            case Sweep():
                self._least, self._due = 0, []
                return Answer(removed=remove_keys(self.book.client, self._space))
            case Quit():
                return Answer(removed=strike(self.book, self._space))
        return Answer()

    def step(self) -> None:
        """Do what is due."""
        at = now()
        if at - self._renewed >= RENEW_SECONDS:
            renew(self.book, self._space)
            self._renewed = at
        if at - self._drained >= DRAIN_SECONDS:
            self.drain()
            self._drained = at
        while self._due and self._due[-1] <= now():
            self._send(self._due.pop())
        if self._least:
            self._top_up()

    def seconds_to_next(self) -> float:
        """Return for how long nothing is due."""
        return min(STEP_SECONDS, max(0.0, self._due[-1] - now())) if self._due else STEP_SECONDS

    def _top_up(self) -> None:
        # As many as were taken in a few steps must be there at the next.
        waiting = self._channel._size(self._space.queue)
        wanted = max(self._least, 4 * (self._waiting - waiting))
        for _ in range(wanted - waiting):
            self._send(now())
        self._waiting = max(waiting, wanted)

    def _send(self, due: float) -> None:
        assert self._write is not None  # noqa: S101  # there is an order
        self._number += 1
        call = next(self._calls)
        self._write("due", self._number, f"{due:.6f}")
        # Not by the task's own apply_async: one that sends each call only once would send too few.
        Task.apply_async(
            self._task,
            call.args,
            dict(call.kwargs),
            task_id=self._space.task_id(self._number),
            queue=self._queue,
            exchange="",
            routing_key=self._space.queue,
            ignore_result=True,
        )

    def drain(self) -> None:
        """Count and remove what the tasks themselves have sent."""
        sink = self.book.prefix + self._space.prefix + self._space.sink
        with self.book.client.pipeline() as pipe:
            pipe.llen(sink)
            pipe.unlink(sink)
            self._sent_by_tasks += int(pipe.execute()[0])


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
    if missing("tuning"):
        raise Refused(f"{describe_missing('tuning')}, so a tuning's tasks cannot be kept apart")
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
