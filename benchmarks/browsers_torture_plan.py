"""browsers_torture_plan: not a benchmark; which sessions meet with which mishap, and how each has to end."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What Selenium and urllib3 raise when chromedriver or the browser is gone, whichever notices first.
GONE = frozenset(
    {
        "WebDriverException",
        "InvalidSessionIdException",
        "NoSuchWindowException",
        "SessionNotCreatedException",
        "TimeoutException",
        "MaxRetryError",
        "NewConnectionError",
        "ProtocolError",
        "ReadTimeoutError",
        "RemoteDisconnected",
    }
)
MOST_DELAY_SECONDS = 1.0
HARD_LIMIT_SECONDS = 15
# None of the others may take so long; it is a failure of the wrong kind then.
SAFETY_LIMIT_SECONDS = 120


@dataclass(frozen=True)
class Kind:
    """How often a kind comes, the errors it must end with (none: it must succeed), how often it must run."""

    share: int
    errors: frozenset[str] = frozenset()
    least_runs: int = 1
    limit_seconds: int = SAFETY_LIMIT_SECONDS


TIME_OVER = frozenset({"TimeLimitExceeded"})
KINDS: dict[str, Kind] = {
    "well": Kind(3),
    "kept": Kind(4),
    "kept, then browser killed": Kind(1),
    "exception": Kind(2, frozenset({"Mishap"})),
    "no quit, raw": Kind(3),
    "hard limit": Kind(1, TIME_OVER, limit_seconds=HARD_LIMIT_SECONDS),
    "hard limit, raw": Kind(1, TIME_OVER, limit_seconds=HARD_LIMIT_SECONDS),
    "page never comes": Kind(2, frozenset({"TimeoutException"})),
    "tab crash": Kind(1, GONE),
    "tab crash, raw": Kind(1, GONE),
    "child killed": Kind(2, least_runs=2),
    "child killed, raw": Kind(2, least_runs=2),
    "chromedriver killed": Kind(1, GONE),
    "chromedriver killed, raw": Kind(1, GONE),
    "browser killed": Kind(1, GONE),
    "browser killed, raw": Kind(1, GONE),
}


@dataclass(frozen=True)
class Session:
    """One task: its mishap comes so long after its page."""

    number: int
    kind: str
    delay_seconds: float

    @property
    def task_id(self) -> str:
        """The id it is sent with."""
        return f"torture-{self.number}"


def make_plan(sessions: int, seed: int) -> list[Session]:
    """Return so many sessions in random order, with each kind among them if there are enough."""
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    kinds = list(KINDS)[:sessions]
    shares = [kind.share for kind in KINDS.values()]
    kinds += chance.choices(list(KINDS), shares, k=sessions - len(kinds))
    chance.shuffle(kinds)
    return [
        Session(number, kind, round(chance.uniform(0, MOST_DELAY_SECONDS), 3))
        for number, kind in enumerate(kinds)
    ]


def judge(session: Session, result: Mapping[str, Any] | None, runs: int) -> str | None:
    """Return what is wrong with a session's end, None if it ended as its kind demands.

    `result` is what Celery's backend has of it: its status, and the error's type.
    """
    kind = KINDS[session.kind]
    if result is None:
        return f"no result after {runs} runs"
    if runs < kind.least_runs:
        return f"{runs} runs, of {kind.least_runs} at least"
    status = result.get("status")
    if not kind.errors:
        return None if status == "SUCCESS" else f"{status}: {result.get('result')}"
    if status != "FAILURE":
        return f"{status}, where it had to fail"
    error = result["result"].get("exc_type")
    return None if error in kind.errors else f"failed by {error}: {result['result'].get('exc_message')}"
