"""A result backend that keeps nothing, and takes whatever a task wants of it."""

from __future__ import annotations

from typing import Any

from celery.backends.base import DisabledBackend


class NoResults(DisabledBackend):
    """Unlike Celery's own, it lets tasks make chords: they are sent, and never run."""

    def ensure_chords_allowed(self) -> None:
        """Nothing is in the way of one."""

    def set_chord_size(self, *_: Any, **__: Any) -> None:
        """Nobody will count."""

    def add_to_chord(self, *_: Any, **__: Any) -> None:
        """Nobody will wait for it."""

    def on_chord_part_return(self, *_: Any, **__: Any) -> None:
        """Nobody counts."""


def keep_no_results(app: Any) -> None:
    """Have an app's tasks leave no results, wherever they would keep them."""
    app._backend_cache = NoResults(app=app)
    for task in app.tasks.values():
        # One that names a backend of its own, too.
        task._backend = None
