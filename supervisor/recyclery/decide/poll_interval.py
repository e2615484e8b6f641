"""The time to the next tick: the closer memory is to its limit and the faster it rises, the shorter.

| condition | seconds |
|---|---|
| below ALERT_PERCENT of the limit | CALM_SECONDS, or BROWSER_START_SECONDS while a browser starts |
| above it | ALERT_SECONDS |
| above it, and late, or at `hard_percent` within two ticks | URGENT_SECONDS |
| files of dead browsers or a browser without its driver are left | at most ALERT_SECONDS |
"""

from __future__ import annotations

from recyclery.config.settings import Settings
from recyclery.decide.memory_levels import level_bytes
from recyclery.observe.snapshot import Snapshot

CALM_SECONDS = 1.0
# A browser allocates 200 MB in a second.
ALERT_SECONDS = 0.2
ALERT_PERCENT = 70
# The files of a browser that is killed this soon after its start are known by then.
BROWSER_START_SECONDS = 0.2
# The shortest interval at which polling does not dominate CPU time.
URGENT_SECONDS = 0.05
# A tick that comes this late means that the container is throttled, or thrashes.
LATE_TICK_SECONDS = 2.0


def poll_interval_seconds(snapshot: Snapshot | None, before: Snapshot | None, settings: Settings) -> float:
    """Return the time from this snapshot to the next, given the one before."""
    if snapshot is None:
        return CALM_SECONDS
    floor = snapshot.container.floor_bytes
    if floor < level_bytes(snapshot, ALERT_PERCENT):
        if snapshot.browsers_starting:
            return BROWSER_START_SECONDS
        return ALERT_SECONDS if snapshot.leftover_files or snapshot.orphaned_browsers else CALM_SECONDS
    if snapshot.late_seconds > LATE_TICK_SECONDS:
        return URGENT_SECONDS
    rise = 0.0
    if before is not None and snapshot.at > before.at:
        rise = (floor - before.container.floor_bytes) / (snapshot.at - before.at)
    hard = level_bytes(snapshot, settings.memory.hard_percent)
    return URGENT_SECONDS if floor + rise * 2 * ALERT_SECONDS >= hard else ALERT_SECONDS
