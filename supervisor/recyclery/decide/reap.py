"""Rung 0: what no live task owns is killed at once, and what has ended is collected."""

from __future__ import annotations

from collections.abc import Iterator

from recyclery.config.settings import Settings
from recyclery.decide.actions import Collect, Reap
from recyclery.observe.ownership import browser_groups
from recyclery.observe.snapshot import TICK_SECONDS, Process, Snapshot


def reap_orphans(snapshot: Snapshot) -> Iterator[Reap]:
    """What a dead child left: all of its session, and browsers that left the session."""
    for orphans in snapshot.orphans:
        doomed = tuple(
            process
            for process in orphans.processes
            if not process.is_defunct and (process.session == orphans.owner.pid or process.is_browser)
        )
        if doomed:
            yield Reap(
                kind="orphans",
                owner=orphans.owner,
                processes=doomed,
                reason=f"their pool child {orphans.owner.pid} is dead",
            )


def reap_leftovers(snapshot: Snapshot, settings: Settings) -> Iterator[Reap]:
    """Browsers that a finished task started and a living child still has.

    A child runs one task at a time, so a browser begun between the start of its first task and the end of its
    last finished one belongs to a task that is over. One older than all tasks is the child's own.
    """
    willing = {pool.name for pool in settings.pools if pool.reap_leftover_browsers}
    for child in snapshot.children:
        ended, first = child.last_task_ended, child.first_task_started
        if child.owner.pool not in willing or ended is None or first is None:
            continue
        doomed: list[Process] = []
        for browser in browser_groups(child.processes, child.owner.pid):
            # Starts are told in whole clock ticks: one tick's doubt goes to the browser on either side.
            began = browser[0].started + TICK_SECONDS
            if first <= began <= ended:
                doomed += [process for process in browser if not process.is_defunct]
        if doomed:
            yield Reap(
                kind="leftovers",
                owner=child.owner,
                processes=tuple(doomed),
                reason=f"the last task that can have started them ended {snapshot.at - ended:.1f} s ago",
            )


def collect_defunct(snapshot: Snapshot) -> Iterator[Collect]:
    """Children with ended browsers that only they, the parent, can collect."""
    for child in snapshot.children:
        defunct = sum(
            process.is_defunct and process.is_browser and process.parent == child.owner.pid
            for process in child.processes
        )
        if defunct:
            yield Collect(owner=child.owner, reason=f"{defunct} ended browser processes wait for their parent")
