"""A child that has traced allocations leaves: tracing has made it slower and larger than its like."""

from __future__ import annotations

from collections.abc import Iterator

from recyclery.decide.actions import Dismiss
from recyclery.decide.budget import find_worker
from recyclery.decide.policy_state import Past, is_recent
from recyclery.observe.snapshot import Snapshot

DISMISS_AGAIN_SECONDS = 10.0


def dismiss_traced(snapshot: Snapshot, past: Past) -> Iterator[Dismiss]:
    """Let each child go whose tracing is over, or was given up."""
    for child in snapshot.children:
        view = find_worker(snapshot, child)
        if child.tracing != "over" or view is None or child.owner.pid in view.leaving:
            continue
        if not is_recent(past.dismissed.get(child.owner), snapshot.at, DISMISS_AGAIN_SECONDS):
            yield Dismiss(owner=child.owner, slot=view.slot, reason="it has traced allocations")
