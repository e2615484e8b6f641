"""What kind each browser of the pools is: every one that runs is in use, a leftover, a runaway or an orphan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from recyclery.config.settings import Browsers
from recyclery.decide.budget import mib
from recyclery.decide.stalls import StalledTask
from recyclery.observe.ownership import count_browsers, running_browsers
from recyclery.observe.snapshot import TICK_SECONDS, Child, Owner, Process, Snapshot

# Most of a core.
BUSY_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Census:
    """How many browsers there are of each kind."""

    live: int = 0
    """All that living children have: `in_use`, `leftovers` and `runaway` together."""
    in_use: int = 0
    """Of a running task, or the child's own; those `kept` for the next tasks are among them."""
    kept: int = 0
    leftovers: int = 0
    runaway: int = 0
    orphans: int = 0
    strangers: int = 0


def count_kinds(snapshot: Snapshot, silences: Mapping[Owner, StalledTask], settings: Browsers) -> Census:
    """Count all browsers of a snapshot."""
    in_use = kept = leftovers = runaway = 0
    for child in snapshot.children:
        for browser in running_browsers(child.processes, child.owner.pid):
            if is_leaked(browser, child):
                leftovers += 1
            elif runaway_reason(browser, child, silences.get(child.owner), snapshot, settings) is not None:
                runaway += 1
            else:
                in_use += 1
                kept += is_kept(browser, child)
    return Census(
        live=in_use + leftovers + runaway,
        in_use=in_use,
        kept=kept,
        leftovers=leftovers,
        runaway=runaway,
        orphans=sum(count_browsers(left.processes, left.owner.pid) for left in snapshot.orphans),
        strangers=count_browsers(snapshot.foreign_browsers, 0),
    )


def is_kept(browser: Iterable[Process], child: Child) -> bool:
    """Tell whether the child keeps this browser for its next tasks, by its own word."""
    return any(process.pid in child.kept for process in browser)


def is_leaked(browser: tuple[Process, ...], child: Child) -> bool:
    """Tell whether a finished task started this browser and nobody keeps it.

    A child runs one task at a time, so a browser begun between the start of its first task and the end of its
    last finished one belongs to a task that is over. One older than all tasks is the child's own.
    """
    first, ended = child.first_task_started, child.last_task_ended
    if first is None or ended is None or is_kept(browser, child):
        return False
    # Starts are told in whole clock ticks: one tick's doubt goes to the browser on either side.
    return first <= browser[0].started + TICK_SECONDS <= ended


def runaway_reason(
    browser: Iterable[Process],
    child: Child,
    silence: StalledTask | None,
    snapshot: Snapshot,
    settings: Browsers,
) -> str | None:
    """Say with figures why a silent task's browser is to be killed; None where it is not.

    A task may well wait for long: only with something else that is wrong its silence tells that it hangs.
    """
    if silence is None or settings.silent_seconds == 0:
        return None
    silent = snapshot.at - silence.since
    if silent < settings.silent_seconds:
        return None
    members = list(browser)
    ticks = sum(process.cpu_ticks - silence.browser_ticks.get(process.key, 0) for process in members)
    share = ticks * TICK_SECONDS / silent
    size = sum(process.anon_bytes for process in members)
    most = snapshot.container.limit_bytes * settings.max_percent // 100
    # A kept browser is older than the task that has it: only this task's time with it counts.
    age = snapshot.at - max(silence.task_seen, min(process.started for process in members))
    task = f"{child.task_name or 'its task'} has done nothing for {silent:.0f} s"
    if share >= BUSY_SHARE:
        return f"{task}, in which the browser used {share:.0%} of a core"
    if size > most:
        return f"{task}, and the browser holds {mib(size)}, over {settings.max_percent} % of the limit"
    if age > settings.max_age_seconds:
        return f"{task}, and has had the browser for {age:.0f} s, over {settings.max_age_seconds:g} s"
    return None
