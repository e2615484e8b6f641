"""Drives the terminal, and asks the governor in threads, so that a slow answer does not freeze the screen."""

import argparse
import os
import select
import shutil
import signal
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from types import FrameType, TracebackType
from typing import NoReturn, Self

import msgspec

from recyclery.common.exit_codes import fail
from recyclery.config.paths import find_runtime_dir
from recyclery.control.client import Declined, NoSupervisor, ask_governor, format_reaped, replace_worker
from recyclery.control.status_schema import Status
from recyclery.top.frame import Screen, draw_frame, draw_page
from recyclery.top.text import Paint, compose_screen, paint_plain, paint_styled
from recyclery.top.view import (
    Disconnected,
    Message,
    Operation,
    RecyclePool,
    ScreenAction,
    Update,
    View,
    press_all,
    read_keys,
    update_view,
)

STATUS_EVERY_SECONDS = 1.0
DRAW_EVERY_SECONDS = 1.0
# Use the alternate screen, hide the cursor, do not wrap in the last column; and back.
ENTER_SCREEN = "\x1b[?1049h\x1b[?25l\x1b[?7l"
LEAVE_SCREEN = "\x1b[?7h\x1b[?25h\x1b[?1049l"
# Columns and lines of terminals that do not report their size, such as one of a container.
DEFAULT_SIZE = os.terminal_size((80, 24))
LOCAL_MODES = 3
CONTROL_CHARACTERS = 6
EXIT_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def show_top(args: argparse.Namespace) -> int:
    """Show the supervisor live, or one frame if requested or without a terminal; return the exit code."""
    directory = find_runtime_dir(os.environ)
    if not args.once and os.isatty(0) and os.isatty(1) and os.environ.get("TERM") != "dumb":
        return watch(directory, paint_plain if os.environ.get("NO_COLOR") else paint_styled)
    status = read_update(directory)
    if isinstance(status, Disconnected):
        return fail(status.reason, 1)
    screen = make_screen(shutil.get_terminal_size(DEFAULT_SIZE))
    print("\n".join(map(paint_plain, draw_page(status, screen))))
    return 0


def read_update(directory: Path) -> Status | Disconnected:
    """Ask the governor for its status."""
    try:
        return msgspec.convert(ask_governor(directory, "glance"), Status)
    except (NoSupervisor, Declined) as error:
        return Disconnected(str(error))
    except msgspec.ValidationError as error:
        return Disconnected(f"a supervisor of another version answers: {error}")


def poll_status(directory: Path, post: Callable[[Update], None]) -> None:
    while True:
        post(read_update(directory))
        time.sleep(STATUS_EVERY_SECONDS)


def run_operation(directory: Path, operation: Operation, post: Callable[[Update], None]) -> None:
    """Do what the command of that name does, and post its output."""
    try:
        if isinstance(operation, RecyclePool):
            for text in replace_worker(directory, operation.pool):
                post(Message(text))
        else:
            post(Message("reaping"))
            post(Message("; ".join(format_reaped(ask_governor(directory, "reap")).splitlines())))
    except (NoSupervisor, Declined) as error:
        post(Message(str(error), bad=True))


class Terminal:
    """A terminal in raw mode: keys come one by one without echo, Ctrl-C and Ctrl-Z too."""

    def __init__(self, keyboard: int, screen: int) -> None:
        self.keyboard = keyboard
        self._screen = screen
        self._before = termios.tcgetattr(keyboard)

    def __enter__(self) -> Self:
        try:
            self.enter()
        except BaseException:
            self.leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def enter(self) -> None:
        """Switch to the alternate screen and raw mode."""
        modes = termios.tcgetattr(self.keyboard)
        modes[LOCAL_MODES] &= ~(termios.ICANON | termios.ECHO | termios.ISIG)
        modes[CONTROL_CHARACTERS][termios.VMIN] = 1
        modes[CONTROL_CHARACTERS][termios.VTIME] = 0
        termios.tcsetattr(self.keyboard, termios.TCSANOW, modes)
        self.write(ENTER_SCREEN)

    def leave(self) -> None:
        """Restore the terminal, if it still exists."""
        with suppress(termios.error):
            termios.tcsetattr(self.keyboard, termios.TCSANOW, self._before)
        with suppress(OSError):
            self.write(LEAVE_SCREEN)

    def size(self) -> os.terminal_size:
        size = os.get_terminal_size(self._screen)
        return os.terminal_size((size.columns or DEFAULT_SIZE.columns, size.lines or DEFAULT_SIZE.lines))

    def read(self) -> bytes:
        """Return the input; nothing once the terminal is gone."""
        try:
            return os.read(self.keyboard, 1024)
        except OSError:
            return b""

    def write(self, text: str) -> None:
        """Print; raises OSError if the terminal is gone."""
        left = text.encode(errors="replace")
        while left:
            left = left[os.write(self._screen, left) :]


class Mailbox:
    """Updates from the threads, and a pipe that wakes the loop for them and for signals."""

    def __init__(self) -> None:
        self.pipe, self.write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._updates: SimpleQueue[Update] = SimpleQueue()

    def post(self, update: Update) -> None:
        """Add an update, from any thread."""
        self._updates.put(update)
        # A full pipe wakes the loop too.
        with suppress(BlockingIOError):
            os.write(self.write_end, b".")

    def take(self) -> Iterator[Update]:
        with suppress(BlockingIOError):
            os.read(self.pipe, 1 << 16)
        with suppress(Empty):
            while True:
                yield self._updates.get_nowait()


def watch(directory: Path, paint: Paint) -> int:
    """Show the supervisor until a key ends it; the terminal is restored in any case."""
    mailbox = Mailbox()
    with exit_by_signals(), Terminal(0, 1) as terminal:
        # Every handled signal wakes the loop.
        signal.set_wakeup_fd(mailbox.write_end, warn_on_full_buffer=False)
        # The exit waits for no thread.
        Thread(target=poll_status, args=(directory, mailbox.post), daemon=True).start()
        view = View()
        while True:
            screen = make_screen(terminal.size())
            terminal.write(compose_screen(draw_frame(view, screen), screen.width, paint))
            ready, _, _ = select.select([terminal.keyboard, mailbox.pipe], [], [], DRAW_EVERY_SECONDS)
            for update in mailbox.take():
                view = update_view(view, update, time.monotonic())
            if terminal.keyboard not in ready:
                continue
            typed = terminal.read()
            if not typed:
                return 0
            view, intents = press_all(view, read_keys(typed))
            for intent in intents:
                if intent is ScreenAction.EXIT:
                    return 0
                if intent is ScreenAction.SUSPEND:
                    terminal.leave()
                    os.kill(0, signal.SIGTSTP)
                    terminal.enter()
                else:
                    Thread(target=run_operation, args=(directory, intent, mailbox.post), daemon=True).start()


def make_screen(size: os.terminal_size) -> Screen:
    clock = time.strftime("%H:%M:%S %Z")
    return Screen(size.columns, size.lines, os.uname().nodename, clock, time.monotonic())


@contextmanager
def exit_by_signals() -> Iterator[None]:
    """Have EXIT_SIGNALS raise SystemExit in this block, and a new window size wake the loop."""

    def exit_by(number: int, _: FrameType | None) -> NoReturn:
        # A second one ends the program at once: a terminal that accepts no output cannot be restored.
        for each in EXIT_SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        raise SystemExit(128 + number)

    handlers = {**dict.fromkeys(EXIT_SIGNALS, exit_by), signal.SIGWINCH: lambda *_: None}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
