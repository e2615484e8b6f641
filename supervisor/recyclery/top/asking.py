"""The governor, asked in threads of their own: whatever it does, the screen goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from recyclery.control.client import Declined, NoSupervisor, ask_governor
from recyclery.control.status_schema import Status
from recyclery.report.reap import format_reaped
from recyclery.report.recycle import NotReplaced, replace_worker
from recyclery.top.view import Away, News, Order, Reap, Recycle, Said, Seen

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
