"""What one line of the supervisor's standard output looks like: text for people, or one JSON object."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

OWN_NAME = "recyclery"
# How Celery's lines begin: [2026-11-22 10:00:00,123: INFO/MainProcess] text.
CELERY_LINE = re.compile(r"\[[\d-]+ [\d:,.]+: ([A-Z]+)/([^\]]*)\] (.*)", re.DOTALL)


class LogFormat(Protocol):
    """Makes lines, their newline included."""

    def output(self, name: str, line: bytes, *, cut: bool) -> bytes:
        """Return a line that a child printed; `cut` when it goes on in the next one."""

    def banner(self, name: str, line: str) -> bytes:
        """Return a line that announces the start of a pool."""

    def own(self, level: str, message: str) -> bytes:
        """Return what the supervisor itself has to say."""


class TextFormat:
    """The child's name and its line as it is."""

    def output(self, name: str, line: bytes, *, cut: bool) -> bytes:
        """Return a line that a child printed, byte for byte."""
        return b"%s | %s\n" % (name.encode(), line)

    def banner(self, name: str, line: str) -> bytes:
        """Return the line alone: people look for just that text."""
        return f"{line}\n".encode()

    def own(self, level: str, message: str) -> bytes:
        """Return a line that begins as Celery's do; a message of several lines becomes several."""
        at = datetime.now().isoformat(" ", "milliseconds").replace(".", ",")
        lines = message.splitlines() or [""]
        return "".join(f"{OWN_NAME} | [{at}] {line}\n" for line in lines).encode()


class JsonFormat:
    """One object per line: time, pool, level where known, message; for Celery's lines their process too.

    `partial` is true where a line was so long that it goes on in the next object.
    """

    def output(self, name: str, line: bytes, *, cut: bool) -> bytes:
        """Return a line that a child printed; what is not UTF-8 in it is written as \\xNN."""
        text = line.decode("utf-8", "backslashreplace").removesuffix("\r")
        known = CELERY_LINE.fullmatch(text)
        if known is None:
            return encode(name, None, text, {"partial": True} if cut else {})
        level, process, message = known.groups()
        return encode(name, level.lower(), message, {"process": process} | ({"partial": True} if cut else {}))

    def banner(self, name: str, line: str) -> bytes:
        """Return the line as the pool's."""
        return encode(name, "info", line, {})

    def own(self, level: str, message: str) -> bytes:
        """Return the message as the supervisor's."""
        return encode(OWN_NAME, level, message, {})


def encode(name: str, level: str | None, message: str, more: dict[str, Any]) -> bytes:
    """Return one object and its newline."""
    entry: dict[str, Any] = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "pool": name}
    if level is not None:
        entry["level"] = level
    return msgspec.json.encode(entry | {"message": message} | more) + b"\n"


FORMATS: dict[str, LogFormat] = {"text": TextFormat(), "json": JsonFormat()}
