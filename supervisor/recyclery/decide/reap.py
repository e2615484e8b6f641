"""Rung 0: kill processes that no live task owns, remove files of dead browsers, reap zombies. It costs no task.

orphans: the session of a dead pool child, and its browsers; at once.
leftovers: browsers leaked by a finished task (`browsers.is_leaked`); at once. Setting:
    `reap_leftover_browsers`.
strays: half-dead browsers. One without its chromedriver is killed after DRIVER_EXIT_SECONDS, a chromedriver
    whose browser left its profile behind after PROFILE_REMOVAL_SECONDS.
runaway: browsers at which a task hangs (`browsers.runaway_reason`). Settings: table `browsers`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from recyclery.config.settings import Settings
from recyclery.decide.actions import EndGridSession, KillForeign, ReapProcesses, ReapZombies, RemoveFiles
from recyclery.decide.browsers import is_leaked, runaway_reason
from recyclery.decide.policy_state import PolicyState
from recyclery.observe.browser_files import REMOVED_BY_MAKER
from recyclery.observe.ownership import browser_groups
from recyclery.observe.snapshot import EndedTask, Process, ProcessKey, Snapshot

# A clean quit takes its time: the browser exits first, then its folders go, then chromedriver.
DRIVER_EXIT_SECONDS = 0.6
# chromedriver removes the profile after its browser's exit, which takes seconds on a busy machine.
PROFILE_REMOVAL_SECONDS = 5.0


def find_reaps(snapshot: Snapshot, state: PolicyState, settings: Settings) -> list[ReapProcesses]:
    """Return all kills, each process in one of them."""
    reaps: list[ReapProcesses] = []
    killed: set[ProcessKey] = set()
    for reap in (
        *reap_orphans(snapshot),
        *reap_leaked(snapshot, settings),
        *reap_half_dead(snapshot),
        *reap_runaways(snapshot, state, settings),
    ):
        keys = {process.key for process in reap.processes}
        if keys and not keys & killed:
            reaps.append(reap)
            killed |= keys
    return reaps


def reap_orphans(snapshot: Snapshot) -> Iterator[ReapProcesses]:
    """Yield what dead children left: all of their sessions, and browsers that left the session."""
    for orphans in snapshot.orphans:
        pid, left = orphans.owner.pid, orphans.processes
        processes = running(each for each in left if each.session == pid or each.is_browser)
        yield ReapProcesses(processes, f"their pool child {pid} is dead", "orphans", orphans.owner)


def reap_leaked(snapshot: Snapshot, settings: Settings) -> Iterator[ReapProcesses]:
    """Yield the browsers that a finished task leaked, by child."""
    reaping = {pool.name for pool in settings.pools if pool.reap_leftover_browsers}
    for child in snapshot.children:
        ended = child.last_task_ended
        if child.owner.pool not in reaping or ended is None:
            continue
        leaked: dict[EndedTask | None, list[Process]] = defaultdict(list)
        for browser in browser_groups(child.processes, child.owner.pid):
            if is_leaked(browser, child):
                leaked[child.maker_of(browser[0])] += running(browser)
        for maker, processes in leaked.items():
            reason = "the last task that can have started them"
            if maker is not None:
                reason = f"{maker.name} left them when it"
            reason = f"{reason} ended {snapshot.at - (maker.ended if maker else ended):.1f} s ago"
            name = maker.name if maker is not None else None
            yield ReapProcesses(tuple(processes), reason, "leftovers", child.owner, name)


def reap_half_dead(snapshot: Snapshot) -> Iterator[ReapProcesses]:
    """Yield halves of a browser whose other half was killed: no task can use them any more."""
    stranded_drivers = {
        driver
        for left in snapshot.leftover_files
        if snapshot.at - left.since >= PROFILE_REMOVAL_SECONDS
        for driver in left.drivers
    }
    without_driver = {
        key for key, since in snapshot.orphaned_browsers.items() if snapshot.at - since >= DRIVER_EXIT_SECONDS
    }
    for child in snapshot.children:
        for browser in browser_groups(child.processes, child.owner.pid):
            processes = running(browser)
            keys = {process.key for process in processes}
            if keys & without_driver:
                yield ReapProcesses(processes, "their chromedriver is gone", "strays", child.owner)
            # Crashpad handlers alone are no sign: after a clean quit they are the last to exit.
            elif keys & stranded_drivers and all(
                process.key in stranded_drivers or process.is_crashpad for process in processes
            ):
                reason = "its browser is gone, and was not asked to quit"
                yield ReapProcesses(processes, reason, "strays", child.owner)


def reap_runaways(snapshot: Snapshot, state: PolicyState, settings: Settings) -> Iterator[ReapProcesses]:
    """Yield browsers at which a task hangs: without them the task gets an error and ends."""
    for child in snapshot.children:
        stall = state.stalls.get(child.owner)
        for browser in browser_groups(child.processes, child.owner.pid):
            reason = runaway_reason(browser, child, stall, snapshot, settings.browsers)
            if reason is not None:
                yield ReapProcesses(running(browser), reason, "runaway", child.owner)


def running(processes: Iterable[Process]) -> tuple[Process, ...]:
    """Return the processes that have not exited."""
    return tuple(process for process in processes if not process.is_defunct)


def kill_foreign(snapshot: Snapshot) -> Iterator[KillForeign]:
    """Yield the kill of browsers that no pool started; only `recyclery reap --strangers` asks for it."""
    if snapshot.foreign_browsers:
        yield KillForeign(snapshot.foreign_browsers, "asked to, though no pool started them")


def remove_leftover_files(snapshot: Snapshot) -> Iterator[RemoveFiles]:
    """Yield the removal of dead browsers' files; profiles get the time in which their maker removes them."""
    left = tuple(
        each
        for each in snapshot.leftover_files
        if not (each.drivers or each.folder.name.startswith(REMOVED_BY_MAKER))
        or snapshot.at - each.since >= PROFILE_REMOVAL_SECONDS
    )
    if left:
        yield RemoveFiles(left)


def end_sessions(snapshot: Snapshot) -> Iterator[EndGridSession]:
    """Yield the end of each session that a dead child has open on the Selenium Grid."""
    for left in snapshot.open_sessions:
        for session in left.ids:
            yield EndGridSession(owner=left.owner, session=session)


def reap_zombies(snapshot: Snapshot) -> Iterator[ReapZombies]:
    """Yield a signal to each child with zombie browser processes, which only it, the parent, can reap."""
    for child in snapshot.children:
        defunct = sum(
            process.is_defunct and process.is_browser and process.parent == child.owner.pid
            for process in child.processes
        )
        if defunct:
            yield ReapZombies(child.owner, f"{defunct} ended browser processes wait for their parent")
