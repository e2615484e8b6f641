"""What `recyclery top` knows, and how keys and the governor's answers change it. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from recyclery.control.status_schema import Status

# Matches whole escape sequences, so that their letters do not count as keys.
KEYSTROKE = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
CTRL_C, CTRL_Z = b"\x03", b"\x1a"
ARROWS = {b"\x1b[A": b"k", b"\x1bOA": b"k", b"\x1b[B": b"j", b"\x1bOB": b"j"}
SAME_KEYS = {**ARROWS, b"Y": b"y", CTRL_C: b"q"}
MESSAGE_SECONDS = 30.0


def read_keys(typed: bytes) -> list[bytes]:
    """Return the keys in the terminal's input, each as the key that stands for all with its meaning."""
    return [SAME_KEYS.get(key, key) for key in KEYSTROKE.findall(typed)]


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


def press(view: View, key: bytes) -> tuple[View, Intent | None]:
    """Return the view after a key, and what to do."""
    if key == b"q":
        return view, ScreenAction.EXIT
    if key == CTRL_Z:
        return view, ScreenAction.SUSPEND
    if view.question is not None:
        # Any other key means no.
        return replace(view, question=None), view.question if key == b"y" else None
    match key:
        case b"k" | b"j":
            view = replace(view, chosen=choose_pool(view.chosen, view.status, 1 if key == b"j" else -1))
        case b"r" if view.chosen is not None:
            view = replace(view, question=RecyclePool(view.chosen))
        case b"b":
            view = replace(view, question=ReapBrowsers())
        case b"?":
            view = replace(view, shows_help=not view.shows_help)
    return view, None


def press_all(view: View, keys: Sequence[bytes]) -> tuple[View, list[Intent]]:
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
