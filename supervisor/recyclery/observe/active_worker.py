"""Which of a pool's workers serves it, where there are two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from recyclery.common.pool_state import PoolState
from recyclery.observe.snapshot import PoolView


def choose_active_workers(views: Sequence[PoolView]) -> tuple[tuple[PoolView, ...], tuple[PoolView, ...]]:
    """Return for each pool the worker that serves it, and all others that have a process.

    Of two the older serves until it is told to leave: the younger may never come to take tasks.
    """
    by_pool: dict[str, list[PoolView]] = {}
    for view in views:
        by_pool.setdefault(view.name, []).append(view)
    serving = tuple(choose_serving(slots) for slots in by_pool.values())
    return serving, tuple(view for view in views if view.pid is not None and view not in serving)


def choose_serving(slots: Iterable[PoolView]) -> PoolView:
    """Return the worker that serves a pool; where none is up, the one that was last."""
    up = [view for view in slots if view.is_in_service]
    if up:
        return min(up, key=lambda view: view.started)
    # One that supervisord is about to try again is more of a worker than one that is gone for good.
    return max(slots, key=lambda view: (view.pid is not None, view.state is PoolState.BACKOFF, view.started))
