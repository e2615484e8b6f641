"""The loop: keys, news and the clock in, frames and orders out."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import NoReturn

from recyclery.top.ansi import Paint, compose_screen
from recyclery.top.asking import begin, carry_out, look_again_and_again
from recyclery.top.frame import Setting, draw_frame
from recyclery.top.keys import read_keys
from recyclery.top.terminal import Terminal
from recyclery.top.view import News, Quit, Suspend, View, hear, press_all

DRAW_EVERY_SECONDS = 1.0
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Mailbox:
    """News from the threads, and a pipe that wakes the loop for them, and for signals."""

    def __init__(self) -> None:
        self.bell, self._cord = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._news: SimpleQueue[News] = SimpleQueue()

    def post(self, news: News) -> None:
        """Bring news, from any thread."""
        self._news.put(news)
        # A full pipe wakes as well.
        with suppress(BlockingIOError):
            os.write(self._cord, b".")

    def take(self) -> Iterator[News]:
        """Yield all that has come."""
        with suppress(BlockingIOError):
            os.read(self.bell, 1 << 16)
        with suppress(Empty):
            while True:
                yield self._news.get_nowait()

    def wake_for_signals(self) -> None:
        """Have every signal that is handled wake the loop."""
        signal.set_wakeup_fd(self._cord, warn_on_full_buffer=False)


def watch(directory: Path, paint: Paint) -> int:
    """Show the supervisor until a key says to leave; the terminal is given back in any case."""
    mailbox = Mailbox()
    with end_by_signals(), Terminal(0, 1) as terminal:
        mailbox.wake_for_signals()
        begin(look_again_and_again, directory, mailbox.post)
        view = View()
        while True:
            draw(view, terminal, paint)
            ready, _, _ = select.select([terminal.keyboard, mailbox.bell], [], [], DRAW_EVERY_SECONDS)
            for news in mailbox.take():
                view = hear(view, news, time.monotonic())
            if terminal.keyboard not in ready:
                continue
            typed = terminal.read()
            if not typed:
                return 0
            view, intents = press_all(view, read_keys(typed))
            for intent in intents:
                match intent:
                    case Quit():
                        return 0
                    case Suspend():
                        suspend(terminal)
                    case order:
                        begin(carry_out, directory, order, mailbox.post)


def draw(view: View, terminal: Terminal, paint: Paint) -> None:
    """Draw a frame of now."""
    columns, lines = terminal.size()
    setting = Setting(
        width=columns,
        height=lines,
        host=os.uname().nodename,
        clock=time.strftime("%H:%M:%S %Z"),
        now=time.monotonic(),
    )
    terminal.write(compose_screen(draw_frame(view, setting), columns, paint))


def suspend(terminal: Terminal) -> None:
    """Stop as Ctrl-Z stops a program, and go on when the shell says so."""
    terminal.give_back()
    os.kill(0, signal.SIGTSTP)
    terminal.take()


@contextmanager
def end_by_signals() -> Iterator[None]:
    """Have signals that end a program end it by an exception, and a new size of the window wake it."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        # A second one ends it at once: a terminal that takes no text any more cannot be given back.
        for ending in ENDING:
            signal.signal(ending, signal.SIG_DFL)
        raise SystemExit(128 + number)

    handlers = {**dict.fromkeys(ENDING, end), signal.SIGWINCH: lambda *_: None}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
