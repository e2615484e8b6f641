"""`recyclery reap`: have what no task owns killed now, and say what that was."""

from __future__ import annotations

import os
import sys
from typing import Any

from recyclery.config.paths import find_runtime_dir
from recyclery.control.client import Declined, NoSupervisor, ask_governor


def reap_now(*, strangers: bool) -> int:
    """Reap, of `strangers` too if asked; return 1 with a message when there is no supervisor to ask."""
    try:
        answer = ask_governor(find_runtime_dir(os.environ), "reap", strangers=strangers)
    except (NoSupervisor, Declined) as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return 1
    print(format_reaped(answer))
    return 0


def format_reaped(answer: dict[str, Any]) -> str:
    """Return a line for everything that was killed, else what is left alone."""
    lines = answer["killed"] or [f"nothing to reap: browsers in use: {answer['in_use']}"]
    if answer["strangers"]:
        lines = [*lines, f"left alone, as no pool started them: {answer['strangers']} (--strangers kills)"]
    return "\n".join(lines)
