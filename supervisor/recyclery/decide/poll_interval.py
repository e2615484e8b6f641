"""How soon to look again: the nearer the limit and the faster the rise, the sooner."""

from __future__ import annotations

from recyclery.config.settings import Settings
from recyclery.decide.budget import level_bytes
from recyclery.observe.snapshot import Snapshot

CALM_SECONDS = 1.0
# Near the limit a second is long: a browser takes 200 MB in one.
ALERT_SECONDS = 0.2
ALERT_PERCENT = 70
# A browser that is killed this soon after its start leaves nothing of which it is not known whose it was.
BROWSER_START_SECONDS = 0.2
# As fast as a look can be had without its being most of what is done.
URGENT_SECONDS = 0.05
# A look that comes so late warned of nothing: the container is throttled, or thrashes.
LATE_TICK_SECONDS = 2.0


def poll_interval_seconds(snapshot: Snapshot | None, before: Snapshot | None, settings: Settings) -> float:
    """Return how long to wait after this snapshot, given the one before it."""
    if snapshot is not None and (snapshot.leftover_files or snapshot.orphaned_browsers):
        # Either is done with in a moment, or has to be done.
        return min(ALERT_SECONDS, next_by_memory_seconds(snapshot, before, settings))
    return next_by_memory_seconds(snapshot, before, settings)


def next_by_memory_seconds(snapshot: Snapshot | None, before: Snapshot | None, settings: Settings) -> float:
    """Return how long the container's memory allows to wait."""
    if snapshot is None:
        return CALM_SECONDS
    if snapshot.container.floor_bytes < level_bytes(snapshot, ALERT_PERCENT):
        return BROWSER_START_SECONDS if snapshot.browsers_starting else CALM_SECONDS
    if snapshot.late_seconds > LATE_TICK_SECONDS:
        return URGENT_SECONDS
    rise = 0.0
    if before is not None and snapshot.at > before.at:
        grown = snapshot.container.floor_bytes - before.container.floor_bytes
        rise = grown / (snapshot.at - before.at)
    hard = level_bytes(snapshot, settings.memory.hard_percent)
    soon = snapshot.container.floor_bytes + rise * 2 * ALERT_SECONDS >= hard
    return URGENT_SECONDS if soon else ALERT_SECONDS
