"""The main process's sign of life: a datagram every other second, also while its loop stands still.

With it the governor tells a loop that waits for its broker from one that hangs, and both from a process that is
stopped or holds the GIL.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.worker import state

from recyclery_worker.control.broker_probe import Backlog
from recyclery_worker.link import Pulse, encode, governor_socket, now

PULSE_SECONDS = 2.0


class PulseStep(bootsteps.StartStopStep):
    """Worker bootstep; the thread goes on to the process's end: the loop is silent longest in a drain."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        """Begin to give signs, and to ask the broker of what they tell."""
        backlog = Backlog(parent.app)
        backlog.begin()
        threading.Thread(target=beat, args=(parent, backlog), name="recyclery-pulse", daemon=True).start()


def beat(worker: Any, backlog: Backlog) -> None:
    """Give a sign every other second; a governor that is not there hears none."""
    path = str(governor_socket(Path(os.environ["RECYCLERY_RUNTIME_DIR"])))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        while True:
            with contextlib.suppress(OSError):
                sock.sendto(encode(feel_pulse(worker, backlog)), path)
            time.sleep(PULSE_SECONDS)


def feel_pulse(worker: Any, backlog: Backlog) -> Pulse:
    """Return the sign to give now."""
    return Pulse(
        pool=os.environ["RECYCLERY_POOL"],
        pid=os.getpid(),
        sent=now(),
        broker_answers=backlog.answers,
        waiting=backlog.waiting,
        stopping=is_stopping(worker),
    )


def is_stopping(worker: Any) -> bool:
    """Tell whether the worker was told to end: by a signal, by remote control, or by its lease's keeper."""
    told = (state.should_stop, state.should_terminate)
    ends: Any = bootsteps
    return any(each is not None and each is not False for each in told) or (
        worker.blueprint.state in {ends.CLOSE, ends.TERMINATE}
    )
