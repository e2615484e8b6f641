"""A worker that is told to stop at once does so between two messages with its children, not amid one.

Celery stops its pool in the signal's handler. Where that interrupts the pool amid a message, or a result that
is not handled yet, it waits for the rest: for 30 s, or for ever.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from billiard import pool as billiard_pool
from celery.concurrency import asynpool

# QUIT, and what can mean the same: TERM with REMAP_SIGTERM, INT as Ctrl-C.
COLD_STOP_SIGNALS = (signal.SIGQUIT, signal.SIGTERM, signal.SIGINT)
POOL_FILES = {asynpool.__file__, billiard_pool.__file__}
TRY_AGAIN_SECONDS = 0.01
# Handling a result may wait for a Redis that is away, and a stop must not.
LONGEST_SECONDS = 1.0


def stop_between_messages(pool: Any) -> None:
    """Have the handlers of this worker's stop wait until its pool (TaskPool) is not amid a message."""
    for number in COLD_STOP_SIGNALS:
        handle = signal.getsignal(number)
        if callable(handle):
            signal.signal(number, _put_off(pool, handle))


def _put_off(
    pool: Any, handle: Callable[[int, FrameType | None], Any]
) -> Callable[[int, FrameType | None], None]:
    owner, since = os.getpid(), 0.0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal since
        since = since or time.monotonic()
        is_due = time.monotonic() - since > LONGEST_SECONDS
        if is_due or os.getpid() != owner or not is_amid_message(pool, frame):
            since = 0.0
            handle(number, frame)
        else:
            main = threading.main_thread().ident
            threading.Timer(TRY_AGAIN_SECONDS, signal.pthread_kill, (main, number)).start()

    return stop


def is_amid_message(pool: Any, frame: FrameType | None) -> bool:
    """Return whether the frame that a signal interrupted is one of a running pool, or was called by one."""
    children = pool.children
    if children is None or children._state != billiard_pool.RUN:
        return False
    while frame is not None:
        if frame.f_code.co_filename in POOL_FILES:
            return True
        frame = frame.f_back
    return False
