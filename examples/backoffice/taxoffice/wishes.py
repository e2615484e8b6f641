"""What a visitor may ask the site to get wrong, in a URL's query or after a `+` in the user's name."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qsl

MAX_DELAY_SECONDS = 3600.0
MAX_HEAVY_MIB = 2048.0


class Trouble(StrEnum):
    """One way for the site to fail."""

    ERROR = "error"
    """Answer with status 500."""
    CUT = "cut"
    """Close the connection without an answer."""
    MALFORMED = "malformed"
    """Send JSON that breaks off in the middle (the JSON endpoint only)."""
    LOOP = "loop"
    """Send the visitor back to the login after a good login (user's name only)."""
    NEVER = "never"
    """Send half of the page, then nothing more."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """How one answer is to differ from a quick, light and right one."""

    delay_seconds: float = 0.0
    heavy_mib: float = 0.0
    trouble: Trouble | None = None


NO_WISHES = Wishes()


def read_wishes(fields: Mapping[str, str]) -> Wishes:
    """Read `delay` (seconds), `heavy` (MiB) and `trouble` out of `fields`; others are ignored.

    Raises ValueError for a number out of range or an unknown trouble.
    """
    trouble = fields.get("trouble")
    return Wishes(
        delay_seconds=_read_number(fields.get("delay", "0"), MAX_DELAY_SECONDS),
        heavy_mib=_read_number(fields.get("heavy", "0"), MAX_HEAVY_MIB),
        trouble=Trouble(trouble) if trouble else None,
    )


def read_user(name: str) -> tuple[str, Wishes]:
    """Split a user's name such as `ana+delay=2&trouble=never` into `ana` and the wishes.

    Raises ValueError as `read_wishes` does.
    """
    user, _, suffix = name.partition("+")
    return user, read_wishes(dict(parse_qsl(suffix)))


def _read_number(text: str, maximum: float) -> float:
    number = float(text)
    if not (math.isfinite(number) and 0 <= number <= maximum):
        raise ValueError(f"{text} is not between 0 and {maximum:g}")
    return number
