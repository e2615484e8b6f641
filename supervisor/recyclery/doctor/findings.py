"""What was found: one line each, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is; only a failure makes `recyclery doctor` exit with 1."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAILURE = "failure"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was seen, and the way out where something is wrong."""

    name: str
    level: Level
    text: str
    fix: str = ""


def ok(name: str, text: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(name, Level.OK, text)


def note(name: str, text: str, fix: str = "") -> Finding:
    """Return something worth knowing."""
    return Finding(name, Level.NOTE, text, fix)


def warning(name: str, text: str, fix: str) -> Finding:
    """Return something that may go wrong."""
    return Finding(name, Level.WARNING, text, fix)


def failure(name: str, text: str, fix: str) -> Finding:
    """Return something that is wrong."""
    return Finding(name, Level.FAILURE, text, fix)


def skipped(name: str, text: str) -> Finding:
    """Return something that could not be looked at, and why."""
    return Finding(name, Level.SKIPPED, text)
