"""Rung 0: what no live task owns is killed at once, and what has ended is collected."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from recyclery.config.settings import Settings
from recyclery.decide.actions import Clean, Collect, EndGridSession, KillForeign, Reap
from recyclery.decide.browsers import is_leaked, runaway_reason
from recyclery.decide.policy_state import PolicyState
from recyclery.observe.ownership import browser_groups
from recyclery.observe.snapshot import Process, ProcessKey, Snapshot

# A clean quit takes its time: the browser is gone first, then its folders, then chromedriver.
DRIVER_EXIT_SECONDS = 0.6
# At a quit chromedriver removes the profile after its browser, which takes seconds on a busy machine.
PROFILE_REMOVAL_SECONDS = 5.0


def find_reaps(snapshot: Snapshot, state: PolicyState, settings: Settings) -> list[Reap]:
    """All that is to be killed, each process once."""
    reaps: list[Reap] = []
    doomed: set[ProcessKey] = set()
    for reap in (
        *reap_orphans(snapshot),
        *reap_leftovers(snapshot, settings),
        *reap_strays(snapshot),
        *reap_runaways(snapshot, state, settings),
    ):
        if not any(process.key in doomed for process in reap.processes):
            reaps.append(reap)
            doomed |= {process.key for process in reap.processes}
    return reaps


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
                cause="orphans",
                owner=orphans.owner,
                processes=doomed,
                reason=f"their pool child {orphans.owner.pid} is dead",
            )


def reap_leftovers(snapshot: Snapshot, settings: Settings) -> Iterator[Reap]:
    """Browsers that a finished task started and a living child still has, without meaning to."""
    willing = {pool.name for pool in settings.pools if pool.reap_leftover_browsers}
    for child in snapshot.children:
        ended = child.last_task_ended
        if child.owner.pool not in willing or ended is None:
            continue
        doomed: list[Process] = []
        for browser in browser_groups(child.processes, child.owner.pid):
            if is_leaked(browser, child):
                doomed += running(browser)
        if doomed:
            yield Reap(
                cause="leftovers",
                owner=child.owner,
                processes=tuple(doomed),
                reason=f"the last task that can have started them ended {snapshot.at - ended:.1f} s ago",
            )


def reap_strays(snapshot: Snapshot) -> Iterator[Reap]:
    """Halves of a browser whose other half was killed: no task can use them any more."""
    stranded = find_stranded(snapshot)
    for child in snapshot.children:
        for browser in browser_groups(child.processes, child.owner.pid):
            doomed = running(browser)
            if any(is_driverless(process, snapshot) for process in doomed):
                yield Reap("strays", child.owner, doomed, "their chromedriver is gone")
            elif any(process.key in stranded for process in doomed) and all(
                process.key in stranded or process.is_crashpad for process in doomed
            ):
                # Crashpad handlers alone are no sign: after a clean quit they are the last to leave.
                yield Reap("strays", child.owner, doomed, "its browser is gone, and was not asked to quit")


def find_stranded(snapshot: Snapshot) -> AbstractSet[ProcessKey]:
    """Return the chromedrivers whose browser has left its profile behind: at a clean quit they remove it."""
    return {
        driver
        for remains in snapshot.leftover_files
        if snapshot.at - remains.since >= PROFILE_REMOVAL_SECONDS
        for driver in remains.drivers
    }


def is_driverless(process: Process, snapshot: Snapshot) -> bool:
    """Tell whether a browser's chromedriver has been gone for longer than the two take to leave together."""
    since = snapshot.orphaned_browsers.get(process.key)
    return since is not None and snapshot.at - since >= DRIVER_EXIT_SECONDS


def reap_runaways(snapshot: Snapshot, state: PolicyState, settings: Settings) -> Iterator[Reap]:
    """Browsers at which a task hangs: without them it gets an error and ends."""
    for child in snapshot.children:
        for browser in browser_groups(child.processes, child.owner.pid):
            reason = runaway_reason(
                browser, child, state.silences.get(child.owner), snapshot, settings.browsers
            )
            doomed = running(browser)
            if reason is not None and doomed:
                yield Reap(cause="runaway", owner=child.owner, processes=doomed, reason=reason)


def running(browser: tuple[Process, ...]) -> tuple[Process, ...]:
    """Return what has not ended of a browser."""
    return tuple(process for process in browser if not process.is_defunct)


def kill_foreign(snapshot: Snapshot) -> Iterator[KillForeign]:
    """Browsers that no pool started; only for a person who asks for it."""
    if snapshot.foreign_browsers:
        yield KillForeign(processes=snapshot.foreign_browsers, reason="asked to, though no pool started them")


def remove_leftover_files(snapshot: Snapshot) -> Iterator[Clean]:
    """Folders of browsers that are gone and left them behind; profiles get the time that a clean quit takes."""
    left = tuple(
        remains
        for remains in snapshot.leftover_files
        if not remains.drivers or snapshot.at - remains.since >= PROFILE_REMOVAL_SECONDS
    )
    if left:
        yield Clean(leftover_files=left)


def end_sessions(snapshot: Snapshot) -> Iterator[EndGridSession]:
    """Browsers elsewhere that a dead child has open."""
    for left in snapshot.open_sessions:
        for session in left.ids:
            yield EndGridSession(owner=left.owner, session=session)


def reap_zombies(snapshot: Snapshot) -> Iterator[Collect]:
    """Children with ended browsers that only they, the parent, can collect."""
    for child in snapshot.children:
        defunct = sum(
            process.is_defunct and process.is_browser and process.parent == child.owner.pid
            for process in child.processes
        )
        if defunct:
            yield Collect(owner=child.owner, reason=f"{defunct} ended browser processes wait for their parent")
