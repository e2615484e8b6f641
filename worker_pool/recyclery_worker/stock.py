"""Celery's pools of other kinds, by their names: `recyclery_worker.stock:threads` and so on.

Celery imports what is named as a custom pool first of all, and so us with it, before its tasks take their
settings over. A pool that is named as its own it imports without us.
"""

from __future__ import annotations

from typing import Any

from celery.concurrency import get_implementation


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    return get_implementation(name)
