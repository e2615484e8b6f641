"""Amounts of memory as people write and read them."""

import math
import re

MIB = 1 << 20
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return the bytes in "1GiB", "1G", "768m" or "1048576"; every unit is binary, as in Docker."""
    match = _SIZE.fullmatch(text.strip())
    amount = float(match[1]) * _UNITS[match[2].lower()] if match else math.inf
    if math.isinf(amount):
        raise ValueError(f"{text!r} is not an amount of memory; write it like 1GiB, 768m or 1073741824")
    return int(amount)


def format_bytes(amount: int) -> str:
    """Return the amount in the unit that keeps it readable: 312 MiB, 1 GiB, 1.25 GiB."""
    if amount >= 1 << 30:
        return f"{amount / (1 << 30):.2f}".rstrip("0").rstrip(".") + " GiB"
    return format_mib(amount) if amount >= MIB else f"{amount / (1 << 10):.0f} KiB"


def format_mib(amount: float) -> str:
    """Return the amount in MiB, so that amounts in one list compare at a glance."""
    return f"{amount / MIB:.0f} MiB"
