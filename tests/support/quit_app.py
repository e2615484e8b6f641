"""The sample app, whose worker is told to QUIT at its pool's worst moments: QUIT_AT says at which."""

# celery-types does not know the private names.
# mypy: disable-error-code="attr-defined,method-assign,assignment"

import os
import signal
from collections.abc import Callable
from itertools import count
from typing import Any

from billiard.connection import Connection
from celery.concurrency import asynpool
from celery.signals import worker_before_create_process
from sample_app import app  # type: ignore[import-not-found]

__all__ = ["app"]
MOMENT = os.environ["QUIT_AT"]
starts, messages = count(1), count(1)


def quit_now() -> None:
    os.kill(os.getpid(), signal.SIGQUIT)


@worker_before_create_process.connect
def start(**_: Any) -> None:
    # The first child is the worker's first, the second its successor, which is started amid a result.
    if MOMENT == "start" and next(starts) == 2:
        quit_now()


def amid(work: Callable[..., Any], moment: str, number: int) -> Callable[..., Any]:
    """Return the work, with a QUIT after it is done for the n-th time."""

    def work_and_quit(*args: Any) -> Any:
        done = work(*args)
        if moment == MOMENT and next(messages) == number:
            quit_now()
        return done

    return work_and_quit


# A job is written as its length and its body; of what a child says, the length is read first.
Connection.send_offset = amid(Connection.send_offset, "write", 1)
receive: Any = asynpool.ResultHandler._recv_message
receive.__defaults__ = tuple(
    amid(default, "read", 2) if default is asynpool.unpack_from else default for default in receive.__defaults__
)
