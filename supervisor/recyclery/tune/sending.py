"""The process that sends a tuning's tasks, as the tuning has it."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import msgspec

from recyclery_worker.tuning.messages import Answer, Order, Quit

# Importing the user's app may take long; sending what one order asks for does not.
START_SECONDS = 180.0
ANSWER_SECONDS = 60.0


class CannotSend(Exception):
    """No tasks can be sent; the message says why."""


class Sending:
    """The process. It removes all of the tuning's keys when it is told to quit, and when we are dead."""

    def __init__(self, app: str, task: str, calls: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._answers = b""
        self._is_ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "recyclery_worker.tuning.sender", app, task, *calls],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            # A Ctrl-C at the terminal is for the tuning alone, which then ends us in order.
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its pid."""
        return self._process.pid

    def wait_until_ready(self) -> list[str]:
        """Return once tasks can be sent, with the dead tunings it has cleaned up after; raises CannotSend."""
        cleaned = self._read(START_SECONDS).cleaned
        self._is_ready = True
        return cleaned

    def order(self, order: Order) -> Answer:
        """Have it do something, and return what came of it; raises CannotSend."""
        assert self._process.stdin is not None  # noqa: S101  # made with a pipe
        # One that has ended has said why.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(msgspec.json.encode(order) + b"\n")
            self._process.stdin.flush()
        return self._read(ANSWER_SECONDS)

    def check(self) -> None:
        """Raise CannotSend where it has ended, with its reason."""
        if self._process.poll() is not None:
            self._read(ANSWER_SECONDS)

    def close(self) -> None:
        """Have it remove everything and end."""
        if not self._is_ready:
            # It has sent nothing, and may import the app for long.
            self._process.kill()
        elif self._process.poll() is None:
            # Without an answer it is not in order; it removes everything when its input ends, too.
            with contextlib.suppress(CannotSend):
                self.order(Quit())
        assert self._process.stdin is not None  # noqa: S101  # made with a pipe
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None  # noqa: S101  # made with a pipe
        self._process.stdout.close()

    def _read(self, seconds: float) -> Answer:
        assert self._process.stdout is not None  # noqa: S101  # made with a pipe
        deadline = time.monotonic() + seconds
        while b"\n" not in self._answers:
            readable, _, _ = select.select(
                [self._process.stdout], [], [], max(0.0, deadline - time.monotonic())
            )
            if not readable:
                raise CannotSend(f"the process that sends the tasks does not answer within {seconds:g} s")
            read = os.read(self._process.stdout.fileno(), 1 << 16)
            if not read:
                raise CannotSend(f"the process that sends the tasks ended with {self._process.wait()}")
            self._answers += read
        line, _, self._answers = self._answers.partition(b"\n")
        answer = msgspec.json.decode(line, type=Answer)
        if answer.error:
            raise CannotSend(answer.error)
        return answer


def calls_of(args: str | None, generate: str | None) -> tuple[str, ...]:
    """Return the words that say with what the task is called."""
    words: tuple[str, ...] = ()
    if args is not None:
        words += ("--args", args)
    if generate is not None:
        words += ("--generate", generate)
    return words
