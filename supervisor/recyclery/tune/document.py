"""The answer as `--json` prints it: additive only, bytes and seconds, null where nothing is known."""

from __future__ import annotations

from typing import Any

import msgspec

from recyclery.tune.evaluate import Judged
from recyclery.tune.fitting import Refused
from recyclery.tune.memory import Peaks
from recyclery.tune.predict import Prediction
from recyclery.tune.recommendation import Answer, Recommended
from recyclery.tune.throughput import Throughput

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
        "next_level": prediction_document(answer.next_level) if answer.next_level else None,
        "fleet": plain(answer.fleet),
        "laws": {
            "throughput": throughput_document(answer.throughput),
            "memory": memory_document(answer.peaks),
        },
        "predictions": [prediction_document(one) for one in answer.predictions],
        "doubts": list(answer.doubts),
    }


def encode_document(answer: Answer) -> str:
    """Return the document's text."""
    return msgspec.json.format(msgspec.json.encode(build_document(answer))).decode()


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


def prediction_document(prediction: Prediction) -> dict[str, Any]:
    """Return what the laws say of a level."""
    document = plain(prediction)
    return {**document.pop("level"), **document}


def throughput_document(law: Throughput | Refused) -> dict[str, Any]:
    """Return the law's figures, or why there is none."""
    if isinstance(law, Refused):
        return {"refused": law.why}
    return {
        "alone_per_second": law.alone_per_second,
        "contention": law.contention,
        "coherence": law.coherence,
        "ceiling_per_second": law.ceiling_per_second,
        "left_out_error": law.fit.left_out_error,
    }


def memory_document(law: Peaks | Refused) -> dict[str, Any]:
    """Return the law's figures, or why there is none."""
    if isinstance(law, Refused):
        return {"refused": law.why}
    return {
        "main_bytes": round(law.main_bytes),
        "child_bytes": round(law.child_bytes),
        "growth_bytes_per_task": round(law.growth_bytes),
        "left_out_error": law.fit.left_out_error,
    }


def plain(value: Any) -> Any:
    """Return a value's fields by name."""
    return msgspec.to_builtins(value)
