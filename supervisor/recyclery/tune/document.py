"""The answer as `--json` prints it: additive only, bytes and seconds, null where nothing is known."""

from __future__ import annotations

from typing import Any

import msgspec

from recyclery.tune.evaluate import Judged
from recyclery.tune.recommendation import Answer, Recommended

VERSION = 1


def build_document(answer: Answer) -> dict[str, Any]:
    """Return the document."""
    return {
        "version": VERSION,
        "wishes": plain(answer.wishes),
        "limit_bytes": answer.limit_bytes,
        "levels": [level_document(judged) for judged in answer.levels],
        "recommended": recommended_document(answer.recommended) if answer.recommended else None,
        "reason": answer.reason,
        "fleet": plain(answer.fleet),
        "doubts": list(answer.doubts),
    }


def level_document(judged: Judged) -> dict[str, Any]:
    """Return a level: what was measured, what binds, and why it cannot be chosen."""
    measured = plain(judged.measured)
    binds = judged.binds if judged.measured.was_tried else None
    return {**measured.pop("level"), **measured, "binds": binds, "obstacle": judged.obstacle or None}


def recommended_document(recommended: Recommended) -> dict[str, Any]:
    """Return what to set."""
    return {
        **plain(recommended.level),
        "memory_limit_bytes": recommended.memory_limit_bytes,
        "conf": recommended.conf,
        "environment": recommended.environment,
    }


def plain(value: Any) -> Any:
    """Return a value's fields by name."""
    return msgspec.to_builtins(value)
