"""What kind of browser each of the pools' browsers is: in use, leaked (a leftover), a runaway or an orphan.

leaked: it was started between its child's first task and the end of the last one, and is not kept for the next.
runaway: its task has used at most NO_CPU_SECONDS for `silent_seconds` (0 switches this off), and the browser
    meanwhile used BUSY_SHARE of a core, or holds more than `max_percent` of the limit, or has been with the
    task for more than `max_age_seconds`. Settings: table `browsers`.
orphan: its pool child is dead.
in use: every other one, those that are kept for the next tasks among them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from recyclery.common.units import format_mib
from recyclery.config.settings import Browsers
from recyclery.decide.policy_state import StalledTask
from recyclery.observe.ownership import count_browsers, running_browsers
from recyclery.observe.snapshot import CLOCK_TICK_SECONDS, Child, Owner, Process, Snapshot

# Most of a core.
BUSY_SHARE = 0.8
# Python's own CPU time up to which a task counts as stalled: polling a browser twice a second takes it in 10 s.
NO_CPU_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class BrowserCounts:
    """How many browsers there are of each kind, by the names in the status document."""

    live: int = 0
    """All that living children have: `in_use`, `leftovers` and `runaway` together."""
    in_use: int = 0
    """A running task's or the child's own; those `kept` for the next tasks are among them."""
    kept: int = 0
    leftovers: int = 0
    runaway: int = 0
    orphans: int = 0
    strangers: int = 0


def count_by_kind(snapshot: Snapshot, stalls: Mapping[Owner, StalledTask], settings: Browsers) -> BrowserCounts:
    """Count all browsers of a snapshot."""
    in_use = kept = leaked = runaway = 0
    for child in snapshot.children:
        for browser in running_browsers(child.processes, child.owner.pid):
            if is_leaked(browser, child):
                leaked += 1
            elif runaway_reason(browser, child, stalls.get(child.owner), snapshot, settings) is not None:
                runaway += 1
            else:
                in_use += 1
                kept += is_kept(browser, child)
    return BrowserCounts(
        live=in_use + leaked + runaway,
        in_use=in_use,
        kept=kept,
        leftovers=leaked,
        runaway=runaway,
        orphans=sum(count_browsers(left.processes, left.owner.pid) for left in snapshot.orphans),
        strangers=count_browsers(snapshot.foreign_browsers, 0),
    )


def is_kept(browser: Iterable[Process], child: Child) -> bool:
    """Return whether the child reports that it keeps this browser for its next tasks."""
    return any(process.pid in child.kept for process in browser)


def is_leaked(browser: tuple[Process, ...], child: Child) -> bool:
    """Return whether a finished task started this browser and the child does not keep it.

    A child runs one task at a time, so a browser started between the start of its first task and the end of its
    last finished one belongs to a finished task. One older than all tasks is the child's own.
    """
    first, ended = child.first_task_started, child.last_task_ended
    if first is None or ended is None or is_kept(browser, child):
        return False
    # Process starts are whole clock ticks: within one tick of either end the browser is taken to be in use.
    return first <= browser[0].started + CLOCK_TICK_SECONDS <= ended


def runaway_reason(
    browser: Iterable[Process], child: Child, stall: StalledTask | None, snapshot: Snapshot, settings: Browsers
) -> str | None:
    """Return why a stalled task's browser is to be killed, with figures; None where it is not.

    A task may wait for long without fault: it takes a second sign to tell that it hangs.
    """
    if stall is None or settings.silent_seconds == 0:
        return None
    stalled_seconds = snapshot.at - stall.since
    if stalled_seconds < settings.silent_seconds:
        return None
    members = list(browser)
    ticks = sum(process.cpu_ticks - stall.browser_ticks.get(process.key, 0) for process in members)
    share = ticks * CLOCK_TICK_SECONDS / stalled_seconds
    size = sum(process.anon_bytes for process in members)
    # A kept browser is older than its task: only this task's time with it counts.
    age = snapshot.at - max(stall.task_seen, min(process.started for process in members))
    task = f"{child.task_name or 'its task'} has done nothing for {stalled_seconds:.0f} s"
    if share >= BUSY_SHARE:
        return f"{task}, in which the browser used {share:.0%} of a core"
    if size > snapshot.container.limit_bytes * settings.max_percent // 100:
        return f"{task}, and the browser holds {format_mib(size)}, over {settings.max_percent} % of the limit"
    if age > settings.max_age_seconds:
        return f"{task}, and has had the browser for {age:.0f} s, over {settings.max_age_seconds:g} s"
    return None


def update_stalls(stalls: Mapping[Owner, StalledTask], snapshot: Snapshot) -> dict[Owner, StalledTask]:
    """Return since when each running task has been stalled; one that used CPU time is stalled since now."""
    updated = {}
    for child in snapshot.children:
        if child.task_id is None:
            continue
        stall = stalls.get(child.owner)
        if stall is not None and stall.task_id != child.task_id:
            stall = None
        ticks = sum(process.cpu_ticks for process in child.processes if process.pid == child.owner.pid)
        if stall is None or (ticks - stall.python_ticks) * CLOCK_TICK_SECONDS > NO_CPU_SECONDS:
            seen = stall.task_seen if stall is not None else snapshot.at
            browser_ticks = {each.key: each.cpu_ticks for each in child.processes if each.is_browser}
            stall = StalledTask(child.task_id, seen, snapshot.at, ticks, browser_ticks)
        updated[child.owner] = stall
    return updated
