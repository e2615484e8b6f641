"""Sends the tasks of a tuning as ordered: so that some always wait, or each at its time.

`python -m recyclery_worker.tuning.sender APP TASK [--args FILE] [--generate MODULE:FUNC] [--folder PATH]` is a
process of its own, as it imports the user's app. It reads orders from standard input and answers each on
standard output, after a first answer when it is ready. When its standard input is closed the tuning has ended:
it then removes all that the tuning has in Redis, and its folder.
"""

import argparse
import contextlib
import importlib
import itertools
import json
import os
import select
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import redis
from celery import Task
from kombu import Queue

from recyclery_worker.broker.connection import BOUNDED, broker_kind, load_app, prepare_import
from recyclery_worker.compat import describe_missing, missing
from recyclery_worker.delivery.registry import Registry, open_registry
from recyclery_worker.link import now
from recyclery_worker.tuning import messages
from recyclery_worker.tuning.cleanup import TUNING_RENEW_SECONDS, remove_dead, remove_keys, remove_tuning, renew
from recyclery_worker.tuning.isolation import isolate_keys
from recyclery_worker.tuning.messages import Answer, Space, Write, open_log, own_space

SENDER_STEP_SECONDS = 0.02
DRAIN_SECONDS = 0.5  # How often the sink is emptied, so that what tasks send does not fill the user's Redis
QUIET_SECONDS = 3.0  # After this time without a new key nobody writes any more
GIVE_UP_SECONDS = 60.0


class TaskArgs(NamedTuple):
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}


class TaskNotSendable(Exception):
    """No task can be sent; the message says why and what is needed."""


WANTED = 'it must be a list of arguments, or {"args": [...], "kwargs": {...}}'


def read_args(value: Any, where: str) -> TaskArgs:
    """Return the arguments in a list or a table; raises TaskNotSendable."""
    if isinstance(value, list | tuple):
        return TaskArgs(tuple(value))
    if isinstance(value, dict) and value.keys() <= {"args", "kwargs"}:
        args, kwargs = value.get("args", ()), value.get("kwargs", {})
        if isinstance(args, list | tuple) and isinstance(kwargs, dict):
            return TaskArgs(tuple(args), kwargs)
    raise TaskNotSendable(f"{where} is {str(value)[:80]!r}: {WANTED}")


def read_args_file(path: Path) -> list[TaskArgs]:
    """Return the arguments in a file of JSON lines; raises TaskNotSendable."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TaskNotSendable(f"--args {path}: {getattr(error, 'strerror', None) or error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"--args {path}, line {number}"
            try:
                found.append(read_args(json.loads(line), where))
            except json.JSONDecodeError as error:
                raise TaskNotSendable(f"{where} is not JSON ({error.msg}): {WANTED}") from None
    if not found:
        raise TaskNotSendable(f"--args {path} is empty: one JSON value in each line; {WANTED}")
    return found


def cycle_generated(name: str) -> Iterator[TaskArgs]:
    """Yield what MODULE:NAME, a function or an iterable, yields, again and again; raises TaskNotSendable."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise TaskNotSendable(f"--generate is {name!r}: it must be MODULE:FUNC, as in app.samples:scrapes")
    try:
        generator = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # the module's own code may raise anything, or exit
        raise TaskNotSendable(f"--generate {name}: {type(error).__name__}: {error}") from None
    while True:
        count = 0
        for count, value in enumerate(generator() if callable(generator) else generator, 1):
            yield read_args(value, f"--generate {name}: the value number {count}")
        if not count:
            raise TaskNotSendable(f"--generate {name} yields nothing")


def cycle_args(path: str | None, generator: str | None) -> Iterator[TaskArgs]:
    """Yield arguments without end: from a file, from a generator, or none at all; raises TaskNotSendable."""
    if generator:
        return cycle_generated(generator)
    return itertools.cycle(read_args_file(Path(path)) if path else [TaskArgs()])


class Sender:
    def __init__(self, app: Any, task: Any, arguments: Iterator[TaskArgs], space: Space) -> None:
        self._task = task
        self._arguments = arguments
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
        # With the user's own prefix alone, as the leases of all tunings are there.
        registry = open_registry(self._channel)
        self.registry = Registry(registry.client, registry.prefix.removesuffix(space.prefix))

    def carry_out(self, order: messages.SenderOrder) -> Answer:
        self._least, self._due = 0, []
        match order:
            case messages.Fill(marks, least):
                self._write, self._least = open_log(Path(marks)), least
                self._waiting = self._sent_by_tasks = 0
            case messages.Arrive(marks, due):
                self._write, self._due = open_log(Path(marks)), sorted(due, reverse=True)
                self._sent_by_tasks = 0
            case messages.Rest():
                self.drain()
                return Answer(sent_by_tasks=self._sent_by_tasks)
            case messages.Sweep():
                remove_keys(self.registry.client, self._space)
            case messages.EndTuning():
                remove_tuning(self.registry, self._space)
        return Answer()

    def step(self) -> None:
        at = now()
        if at - self._renewed >= TUNING_RENEW_SECONDS:
            renew(self.registry, self._space)
            self._renewed = at
        if at - self._drained >= DRAIN_SECONDS:
            self.drain()
            self._drained = at
        while self._due and self._due[-1] <= now():
            self._send(self._due.pop())
        if not self._least:
            return
        # Enough that those taken in a few steps still wait at the next.
        waiting = self._channel._size(self._space.queue)
        wanted = max(self._least, 4 * (self._waiting - waiting))
        for _ in range(wanted - waiting):
            self._send(now())
        self._waiting = max(waiting, wanted)

    def seconds_to_next(self) -> float:
        """Return for how long nothing is due."""
        return min(SENDER_STEP_SECONDS, max(0.0, self._due[-1] - now())) if self._due else SENDER_STEP_SECONDS

    def _send(self, due: float) -> None:
        assert self._write is not None  # noqa: S101  # there is an order
        self._number += 1
        arguments = next(self._arguments)
        self._write("due", self._number, f"{due:.6f}")
        # Not by the task's own apply_async, which may send the same arguments only once.
        Task.apply_async(
            self._task,
            arguments.args,
            dict(arguments.kwargs),
            task_id=self._space.task_id(self._number),
            queue=self._queue,
            exchange="",
            routing_key=self._space.queue,
            ignore_result=True,
        )

    def drain(self) -> None:
        """Count and remove what the tasks themselves have sent."""
        sink = self.registry.prefix + self._space.prefix + self._space.sink
        with self.registry.client.pipeline() as pipe:
            pipe.llen(sink)
            pipe.unlink(sink)
            self._sent_by_tasks += int(pipe.execute()[0])


def get_task(app: Any, name: str) -> Any:
    if name in app.tasks:
        return app.tasks[name]
    known = sorted(task for task in app.tasks if not task.startswith("celery."))
    alike = [task for task in known if name in task or task.rpartition(".")[2] == name.rpartition(".")[2]]
    has = ", ".join(alike or known[:20]) or "none"
    raise TaskNotSendable(f"--task is {name!r}: the app has no such task; it has {has}")


def make_sender(options: argparse.Namespace, space: Space) -> Sender:
    """Import the app and connect; raises TaskNotSendable."""
    try:
        app = load_app(options.app, finalize=True)
    except ImportError as error:
        raise TaskNotSendable(f"app is {options.app!r}: it cannot be imported: {error}") from None
    if missing("tuning"):
        raise TaskNotSendable(f"{describe_missing('tuning')}, so a tuning's tasks cannot be kept apart")
    app.conf.task_always_eager = False
    if (kind := broker_kind(app.connection_for_write())) != "redis":
        raise TaskNotSendable(
            f"the app's broker is {kind}: tuning needs Redis, where tasks can be kept apart from those in "
            "service; point the app at one"
        )
    task = get_task(app, options.task)
    try:
        first = next(cycle_args(options.args, options.generate))
        check = getattr(task, "__header__", None)
        if check is not None and task.typing:
            check(*first.args, **first.kwargs)
    except TypeError as error:
        fix = "give its arguments with --args or --generate"
        raise TaskNotSendable(f"{task.name} cannot be called so: {error}; {fix}") from None
    try:
        return Sender(app, task, cycle_args(options.args, options.generate), space)
    except Exception as error:  # kombu and redis raise errors of many kinds
        address = app.connection_for_write().as_uri()  # Without a password
        raise TaskNotSendable(f"the app's broker at {address} does not answer: {error}") from None


def serve_orders(sender: Sender, output: int) -> bool:
    """Carry out orders until standard input is closed; return whether we were told to quit."""
    decoder = msgspec.json.Decoder(messages.SenderOrder)
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
                send_answer(output, sender.carry_out(order))
                if isinstance(order, messages.EndTuning):
                    return True
        sender.step()


def clean_up(sender: Sender, space: Space) -> None:
    """Remove everything, until nobody writes any more: the worker may outlive the tuning a little."""
    began = quiet = time.monotonic()
    while time.monotonic() - quiet < QUIET_SECONDS and time.monotonic() - began < GIVE_UP_SECONDS:
        try:
            if remove_tuning(sender.registry, space):
                quiet = time.monotonic()
        except redis.RedisError:
            # The next tuning finds what is left.
            quiet = time.monotonic()
        time.sleep(0.2)


def send_answer(output: int, answer: Answer) -> None:
    """Print an answer, whether or not anybody reads it."""
    with contextlib.suppress(BrokenPipeError):
        os.write(output, msgspec.json.encode(answer) + b"\n")


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("app", "task", "--args", "--generate", "--folder"):
        parser.add_argument(name)
    options = parser.parse_args()
    space = own_space()
    assert space is not None  # noqa: S101  # whoever starts this names it
    output = prepare_import()
    isolate_keys(space)
    try:
        sender = make_sender(options, space)
        renew(sender.registry, space)
        cleaned = [each.name for each in remove_dead(sender.registry)]
        send_answer(output, Answer(cleaned=cleaned))
    except TaskNotSendable as error:
        send_answer(output, Answer(error=str(error)))
        return 1
    told_to_quit = False
    try:
        told_to_quit = serve_orders(sender, output)
    except TaskNotSendable as error:
        send_answer(output, Answer(error=str(error)))
    except Exception as error:  # from kombu or redis, or as the arguments are not serialisable
        send_answer(output, Answer(error=f"no task can be sent: {type(error).__name__}: {error}"))
    finally:
        if not told_to_quit:
            clean_up(sender, space)
            if options.folder:
                shutil.rmtree(options.folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
