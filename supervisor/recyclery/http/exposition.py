"""Prometheus' text format, version 0.0.4, of families of samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Sample:
    """One value; `suffix` is what a histogram's name has after it."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""


def format_family(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> str:
    """Return a family's lines; nothing where it has no sample now."""
    lines = [f"{name}{sample.suffix}{format_labels(sample.labels)} {sample.value!r}" for sample in samples]
    if not lines:
        return ""
    meaning = meaning.replace("\\", r"\\").replace("\n", r"\n")
    return "\n".join([f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *lines, ""])


def format_labels(labels: Mapping[str, str]) -> str:
    """Return labels in braces; nothing where there are none."""
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in labels.items()) + "}"


def escape(value: str) -> str:
    """Return a label's value as it stands between quotes."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
