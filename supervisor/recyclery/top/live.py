"""The governor, asked in threads of their own: whatever it does, the screen goes on."""

from __future__ import annotations

import os
import select
import signal
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

import msgspec

from recyclery.cli.operations import NotReplaced, format_reaped, replace_worker
from recyclery.control.client import Declined, NoSupervisor, ask_governor
from recyclery.control.status_schema import Status
from recyclery.top.frame import Setting, draw_frame
from recyclery.top.text import Paint, compose_screen
from recyclery.top.view import (
    Away,
    News,
    Order,
    Quit,
    Reap,
    Recycle,
    Said,
    Seen,
    Suspend,
    View,
    hear,
    press_all,
    read_keys,
)

LOOK_EVERY_SECONDS = 1.0


def look(directory: Path) -> Seen | Away:
    """Ask the governor how things are."""
    try:
        return Seen(msgspec.convert(ask_governor(directory, "glance"), Status))
    except (NoSupervisor, Declined) as error:
        return Away(str(error))
    except msgspec.ValidationError as error:
        return Away(f"a supervisor of another version answers: {error}")


def look_again_and_again(directory: Path, tell: Callable[[News], None]) -> None:
    """Tell how things are, each second, for ever."""
    while True:
        tell(look(directory))
        time.sleep(LOOK_EVERY_SECONDS)


def carry_out(directory: Path, order: Order, tell: Callable[[News], None]) -> None:
    """Do as the command of that name does, telling what comes of it."""
    try:
        for text in follow(directory, order):
            tell(Said(text))
    except (NoSupervisor, Declined, NotReplaced) as error:
        tell(Said(str(error), bad=True))


def follow(directory: Path, order: Order) -> Iterator[str]:
    """Yield what comes of an order. Raises NoSupervisor, Declined or NotReplaced."""
    match order:
        case Recycle(pool):
            yield from replace_worker(directory, pool)
        case Reap():
            yield "reaping"
            yield "; ".join(format_reaped(ask_governor(directory, "reap")).splitlines())


def begin(task: Callable[..., None], *arguments: object) -> None:
    """Run a function beside the screen; leaving does not wait for it."""
    threading.Thread(target=task, args=arguments, daemon=True).start()


# The alternate screen, no cursor, no wrapping at the last column; and back.
TAKE = "\x1b[?1049h\x1b[?25l\x1b[?7l"
GIVE_BACK = "\x1b[?7h\x1b[?25h\x1b[?1049l"
# Where a terminal does not tell its size: a container's that was given none.
COLUMNS, LINES = 80, 24
LOCAL_MODES = 3
CONTROL_CHARACTERS = 6


class Terminal:
    """Keys come one by one and are not echoed; Ctrl-C and Ctrl-Z are keys like others."""

    def __init__(self, keyboard: int, screen: int) -> None:
        self.keyboard = keyboard
        self._screen = screen
        self._before: list[Any] = []

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self.keyboard)
        try:
            self.take()
        except BaseException:
            self.give_back()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()

    def take(self) -> None:
        """Begin to draw and to read keys."""
        modes = termios.tcgetattr(self.keyboard)
        modes[LOCAL_MODES] &= ~(termios.ICANON | termios.ECHO | termios.ISIG)
        modes[CONTROL_CHARACTERS][termios.VMIN] = 1
        modes[CONTROL_CHARACTERS][termios.VTIME] = 0
        termios.tcsetattr(self.keyboard, termios.TCSANOW, modes)
        self.write(TAKE)

    def give_back(self) -> None:
        """Leave it as it was found; one that is gone needs nothing."""
        with suppress(termios.error):
            termios.tcsetattr(self.keyboard, termios.TCSANOW, self._before)
        with suppress(OSError):
            self.write(GIVE_BACK)

    def size(self) -> os.terminal_size:
        """Return columns and lines."""
        size = os.get_terminal_size(self._screen)
        return os.terminal_size((size.columns or COLUMNS, size.lines or LINES))

    def read(self) -> bytes:
        """Return what was typed; nothing where nobody can type any more."""
        try:
            return os.read(self.keyboard, 1024)
        except OSError:
            return b""

    def write(self, text: str) -> None:
        """Print; raises OSError where the terminal is gone."""
        left = text.encode(errors="replace")
        while left:
            left = left[os.write(self._screen, left) :]


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
