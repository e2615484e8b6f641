"""What dead workers left in Redis that nobody has given back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from recyclery.doctor.findings import Finding, ok, skipped, warning
from recyclery.report.reclaim import CannotTell, find_forgotten, find_tunings
from recyclery_worker.delivery.reclaim import OrphanedLease

NAME = "forgotten tasks"


def look_at_leases(app: str) -> Sequence[OrphanedLease] | str:
    """Return the dead workers that hold something, or why that cannot be told."""
    try:
        return find_forgotten(app)
    except CannotTell as error:
        return str(error)


def judge_leases(found: Sequence[OrphanedLease] | str) -> Iterator[Finding]:
    """Say whether tasks wait in the hands of the dead."""
    if isinstance(found, str):
        yield skipped(NAME, found)
        return
    for worker in found:
        yield warning(
            NAME,
            f"{worker.messages} are held by {worker.node} (pid {worker.pid}), which is dead",
            "a living worker gives them back within 20 s; where there is none: recyclery reclaim",
        )
    if not found:
        yield ok(NAME, "nothing is held by dead workers")


def look_at_tunings(app: str) -> Sequence[str] | str:
    """Return the tunings that were killed and left something, or why that cannot be told."""
    try:
        return find_tunings(app)
    except CannotTell as error:
        return str(error)


def judge_tunings(found: Sequence[str] | str) -> Iterator[Finding]:
    """Say what `recyclery tune` left where it was killed; nothing where it left nothing."""
    if isinstance(found, str):
        return
    for name in found:
        yield warning(
            "tunings",
            f"one that was killed has left its tasks in Redis ({name})",
            "the next `recyclery tune` removes them; or: recyclery reclaim",
        )
