"""Follows what is wrong with workers as such: a main process hangs, or takes nothing while tasks wait.

None of it is told apart from a broker that is away by its looks, so nothing counts while any worker finds its
broker away: each says so from a thread of its own (`recyclery_worker.pulse`).
"""

from __future__ import annotations

from collections.abc import Mapping

from recyclery.config.settings import Pool, Settings
from recyclery.decide.attention import LATE_SECONDS
from recyclery.decide.budget import find_view
from recyclery.decide.policy_state import MEND_AGAIN_AT_MOST_SECONDS, Ailment, Kind, Mend
from recyclery.observe.snapshot import PoolView, Snapshot, Vitals

# A look that comes late, after a freeze or for want of CPU, has not seen the time before it.
LONGEST_STEP_SECONDS = 3.0


def follow_mend(before: Mend | None, at: float) -> Mend:
    """Return the mend that was made now: one more in a row, or the first after a long time."""
    in_a_row = before is not None and at - before.at < 2 * MEND_AGAIN_AT_MOST_SECONDS
    return Mend(at, before.times + 1 if before is not None and in_a_row else 1)


def follow_ailments(
    ailments: Mapping[str, Ailment], snapshot: Snapshot, settings: Settings
) -> dict[str, Ailment]:
    """Return what is wrong with workers after this snapshot, by pool."""
    followed = {}
    for pool in settings.pools:
        view = find_view(snapshot, pool.name)
        if view is None or view.vitals is None or finds_broker_away(snapshot):
            continue
        kind = diagnose(pool, view, view.vitals)
        if kind is not None:
            followed[pool.name] = follow_ailment(ailments.get(pool.name), kind, view.vitals, snapshot)
    return followed


def follow_ailment(before: Ailment | None, kind: Kind, vitals: Vitals, snapshot: Snapshot) -> Ailment:
    """Return one ailment: an older one if it is the same, else one that begins now."""
    same = before is not None and (before.kind, before.pid, before.received) == (
        kind,
        vitals.pid,
        vitals.received,
    )
    if before is None or not same:
        return Ailment(kind, vitals.pid, vitals.received, 0.0, snapshot.at)
    step = min(snapshot.at - before.at, LONGEST_STEP_SECONDS)
    if snapshot.late_seconds > LATE_SECONDS:
        step = 0.0
    return Ailment(kind, vitals.pid, vitals.received, before.seconds + step, snapshot.at)


def finds_broker_away(snapshot: Snapshot) -> bool:
    """Tell whether any worker says that its broker does not answer."""
    return any(view.vitals is not None and view.vitals.broker_answers is False for view in snapshot.pools)


def diagnose(pool: Pool, view: PoolView, vitals: Vitals) -> Kind | None:
    """Say what seems wrong with a worker at this look; one that drains or starts has a state of its own."""
    if view.state == "not answering" and pool.forks and not vitals.stopping and not is_traced(view):
        # Where tasks run in the main process, that may be busy with one.
        return "hangs"
    if view.state == "running" and not view.holding and vitals.has_room and vitals.waiting:
        return "starves"
    return None


def is_traced(view: PoolView) -> bool:
    """Tell whether somebody has a debugger at a main process."""
    return view.main is not None and view.main.state == "t"
