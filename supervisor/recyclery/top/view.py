"""What is typed, as keys that mean something."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from recyclery.control.status_schema import Status

# Escape sequences whole, else the letters of one would be taken for keys.
PRESSED = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)


class Key(Enum):
    """A key that means something; OTHER is any that does not, and so is no answer but a no."""

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


MEANINGS = {
    b"q": Key.QUIT,
    b"\x03": Key.INTERRUPT,
    b"\x1a": Key.SUSPEND,
    b"k": Key.UP,
    b"\x1b[A": Key.UP,
    b"\x1bOA": Key.UP,
    b"j": Key.DOWN,
    b"\x1b[B": Key.DOWN,
    b"\x1bOB": Key.DOWN,
    b"r": Key.RECYCLE,
    b"b": Key.REAP,
    b"y": Key.YES,
    b"Y": Key.YES,
    b"?": Key.HELP,
}


def read_keys(typed: bytes) -> list[Key]:
    """Return the keys in what was typed."""
    return [MEANINGS.get(pressed, Key.OTHER) for pressed in PRESSED.findall(typed)]


# What was said stands so long, unless something else is said.
SAID_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Recycle:
    """Give a pool a new worker."""

    pool: str


@dataclass(frozen=True, slots=True)
class Reap:
    """Kill the browsers that no task owns."""


@dataclass(frozen=True, slots=True)
class Quit:
    """Leave."""


@dataclass(frozen=True, slots=True)
class Suspend:
    """Stop until the shell says to go on."""


Order = Recycle | Reap
Intent = Order | Quit | Suspend


@dataclass(frozen=True, slots=True)
class Seen:
    """The governor's answer."""

    status: Status


@dataclass(frozen=True, slots=True)
class Away:
    """No answer, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Said:
    """What came, or comes, of an order; `bad` where it failed."""

    text: str
    bad: bool = False


News = Seen | Away | Said


@dataclass(frozen=True, slots=True)
class View:
    """All that a frame is drawn from. Times are monotonic seconds."""

    status: Status | None = None
    seen: float = 0.0
    away: Away | None = None
    away_since: float = 0.0
    oom_kills_before: int = 0
    chosen: str | None = None
    question: Order | None = None
    said: Said | None = None
    said_at: float = 0.0
    helping: bool = False


def hear(view: View, news: News, now: float) -> View:
    """Return the view after an answer, or the lack of one."""
    match news:
        case Seen(status):
            first = view.status is None
            return replace(
                view,
                status=status,
                seen=now,
                away=None,
                oom_kills_before=status.container.oom_kills if first else view.oom_kills_before,
                chosen=keep_choice(view.chosen, list(status.pools)),
            )
        case Away():
            return replace(view, away=news, away_since=view.away_since if view.away else now)
        case Said():
            return replace(view, said=news, said_at=now)


def press(view: View, key: Key) -> tuple[View, Intent | None]:
    """Return the view after a key, and what is to be done for it."""
    if key in {Key.QUIT, Key.INTERRUPT}:
        return view, Quit()
    if key is Key.SUSPEND:
        return view, Suspend()
    if view.question is not None:
        # Whatever is not a yes is a no.
        return replace(view, question=None), view.question if key is Key.YES else None
    match key:
        case Key.UP:
            return replace(view, chosen=move_choice(view, -1)), None
        case Key.DOWN:
            return replace(view, chosen=move_choice(view, 1)), None
        case Key.RECYCLE if view.chosen is not None:
            return replace(view, question=Recycle(view.chosen)), None
        case Key.REAP:
            return replace(view, question=Reap()), None
        case Key.HELP:
            return replace(view, helping=not view.helping), None
    return view, None


def press_all(view: View, keys: Sequence[Key]) -> tuple[View, list[Intent]]:
    """Press keys that came together; what was typed before a question could be read is no answer to it."""
    intents = []
    for key in keys:
        asked = view.question
        view, intent = press(view, key)
        if intent is not None:
            intents.append(intent)
        if view.question is not None and asked is None:
            break
    return view, intents


def keep_choice(chosen: str | None, pools: Sequence[str]) -> str | None:
    """Return the chosen pool; the first where that is gone."""
    return chosen if chosen in pools else next(iter(pools), None)


def move_choice(view: View, by: int) -> str | None:
    """Return the pool that many places further down, no further than the last."""
    pools = list(view.status.pools) if view.status is not None else []
    if view.chosen not in pools:
        return keep_choice(None, pools)
    return pools[min(max(pools.index(view.chosen) + by, 0), len(pools) - 1)]
