"""Findings of the doctor: one line each, with what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is; only a failure makes `recyclery doctor` exit with 1."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing."""
    WARNING = "warning"
    """It may go wrong."""
    FAILURE = "failure"
    SKIPPED = "skipped"
    """It could not be checked."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was checked, the result, and how to fix it where something is wrong."""

    name: str
    level: Severity
    text: str
    fix: str = ""


def ok(name: str, text: str) -> Finding:
    return Finding(name, Severity.OK, text)


def note(name: str, text: str, fix: str = "") -> Finding:
    return Finding(name, Severity.NOTE, text, fix)


def warning(name: str, text: str, fix: str) -> Finding:
    return Finding(name, Severity.WARNING, text, fix)


def failure(name: str, text: str, fix: str) -> Finding:
    return Finding(name, Severity.FAILURE, text, fix)


def skipped(name: str, text: str) -> Finding:
    return Finding(name, Severity.SKIPPED, text)
