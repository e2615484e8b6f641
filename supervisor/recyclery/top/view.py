"""What `recyclery top` knows, and how keys and the governor's answers change it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from recyclery.control.status_schema import Status

# Matches whole escape sequences, so that their letters do not count as keys.
KEYSTROKE = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
MESSAGE_SECONDS = 30.0


class Keystroke(Enum):
    """A key with a meaning; OTHER is any without one, and so does not confirm anything."""

    QUIT = "q"
    INTERRUPT = "Ctrl-C"
    SUSPEND = "Ctrl-Z"
    UP = "up"
    DOWN = "down"
    RECYCLE = "r"
    REAP = "b"
    YES = "y"
    HELP = "?"
    OTHER = ""


KEYSTROKES = {
    b"q": Keystroke.QUIT,
    b"\x03": Keystroke.INTERRUPT,
    b"\x1a": Keystroke.SUSPEND,
    **dict.fromkeys((b"k", b"\x1b[A", b"\x1bOA"), Keystroke.UP),
    **dict.fromkeys((b"j", b"\x1b[B", b"\x1bOB"), Keystroke.DOWN),
    b"r": Keystroke.RECYCLE,
    b"b": Keystroke.REAP,
    b"y": Keystroke.YES,
    b"Y": Keystroke.YES,
    b"?": Keystroke.HELP,
}


def read_keys(typed: bytes) -> list[Keystroke]:
    """Return the keys in the terminal's input."""
    return [KEYSTROKES.get(key, Keystroke.OTHER) for key in KEYSTROKE.findall(typed)]


@dataclass(frozen=True, slots=True)
class RecyclePool:
    """Replace a pool's worker by a new one."""

    pool: str


@dataclass(frozen=True, slots=True)
class ReapBrowsers:
    """Kill the browsers that no task owns."""


class ScreenAction(Enum):
    """What to do with the terminal."""

    EXIT = "exit"
    SUSPEND = "suspend"
    """Stop until the shell continues the program."""


Operation = RecyclePool | ReapBrowsers
Intent = Operation | ScreenAction


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The governor did not answer, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Message:
    """Progress or outcome of an operation; `bad` if it failed."""

    text: str
    bad: bool = False


Update = Status | Disconnected | Message


@dataclass(frozen=True, slots=True)
class View:
    """All that a frame is drawn from. Times are monotonic seconds."""

    status: Status | None = None
    status_at: float = 0.0
    disconnected: Disconnected | None = None
    disconnected_since: float = 0.0
    oom_kills_before: int = 0
    chosen: str | None = None
    question: Operation | None = None
    message: Message | None = None
    message_at: float = 0.0
    shows_help: bool = False


def update_view(view: View, update: Update, now: float) -> View:
    """Return the view after an answer of the governor, or without one."""
    match update:
        case Disconnected():
            since = view.disconnected_since if view.disconnected else now
            return replace(view, disconnected=update, disconnected_since=since)
        case Message():
            return replace(view, message=update, message_at=now)
    is_first = view.status is None
    return replace(
        view,
        status=update,
        status_at=now,
        disconnected=None,
        oom_kills_before=update.container.oom_kills if is_first else view.oom_kills_before,
        chosen=choose_pool(view.chosen, update),
    )


def choose_pool(chosen: str | None, status: Status | None, by: int = 0) -> str | None:
    """Return the pool that is `by` places further down; the first one if the chosen one is gone."""
    pools = list(status.pools) if status is not None else []
    if chosen not in pools:
        return next(iter(pools), None)
    return pools[min(max(pools.index(chosen) + by, 0), len(pools) - 1)]


def press(view: View, key: Keystroke) -> tuple[View, Intent | None]:
    """Return the view after a key, and what to do."""
    if key in {Keystroke.QUIT, Keystroke.INTERRUPT}:
        return view, ScreenAction.EXIT
    if key is Keystroke.SUSPEND:
        return view, ScreenAction.SUSPEND
    if view.question is not None:
        # Any other key means no.
        return replace(view, question=None), view.question if key is Keystroke.YES else None
    match key:
        case Keystroke.UP:
            view = replace(view, chosen=choose_pool(view.chosen, view.status, -1))
        case Keystroke.DOWN:
            view = replace(view, chosen=choose_pool(view.chosen, view.status, 1))
        case Keystroke.RECYCLE if view.chosen is not None:
            view = replace(view, question=RecyclePool(view.chosen))
        case Keystroke.REAP:
            view = replace(view, question=ReapBrowsers())
        case Keystroke.HELP:
            view = replace(view, shows_help=not view.shows_help)
    return view, None


def press_all(view: View, keys: Sequence[Keystroke]) -> tuple[View, list[Intent]]:
    """Press keys that came together; keys typed before a question could be read do not answer it."""
    intents = []
    for key in keys:
        question = view.question
        view, intent = press(view, key)
        if intent is not None:
            intents.append(intent)
        if view.question is not None and question is None:
            break
    return view, intents
