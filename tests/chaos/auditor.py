"""Judges a record: every task done, and done twice only where a fault that was dealt explains it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from chaos.record import FOREVER, Blow, Look, Record, Run

# A result reaches the worker's main process and its acknowledgement Redis within this, on a busy machine.
ACKNOWLEDGE_SECONDS = 5.0
# A worker that stood still for less than this had its lease all the time: 10 s, renewed every 2 s.
SHORTEST_LEASE_SECONDS = 5.0
# A lease that ran out during a fault may be acted upon this much later.
LATE_SECONDS = 15.0
# What Celery itself leaves: its exchanges, and a killed worker's queue for answers of others.
CELERYS_KEYS = re.compile(r"_kombu\.binding.*|[0-9a-f-]{36}\.reply\.celery\.pidbox")

# What is kept for some days, as docs/guarantees.md says.
OUR_MARKS = re.compile(r"recyclery:(\w+:reclaimed|deaths:.+)")


def audit(record: Record) -> list[str]:
    """Return what is wrong, a line for each; nothing where all is as promised."""
    return [
        *find_lost(record),
        *find_repeats(record),
        *find_unfinished(record),
        *find_remains(record),
    ]


def find_lost(record: Record) -> Iterator[str]:
    """Tasks that were never done."""
    done = {run.task for run in record.runs if run.ended is not None}
    for task in sorted(record.sent - done):
        since, until = vanished_between(task, record.looks)
        yield f"task {task} was never done; last seen {since:.2f}, missed from {until:.2f}"


def vanished_between(task: int, looks: Sequence[Look]) -> tuple[float, float]:
    """Return when a task was there for the last time, and when it was first known to be gone for good."""
    since, until = -FOREVER, FOREVER
    for look in looks:
        if task not in look.missing | look.on_the_way:
            since, until = look.began, FOREVER
        elif task in look.missing:
            until = min(until, look.ended)
    return since, until


def find_repeats(record: Record) -> Iterator[str]:
    """Runs of a task that had been run, or was running, without a fault that explains it."""
    runs = defaultdict(list)
    for run in record.runs:
        if run.task not in record.doubtful:
            runs[run.task].append(run)
    for task, several in runs.items():
        for before, after in pairwise(several):
            if not any(explains_repeat(blow, before, after) for blow in record.blows):
                yield (
                    f"task {task} ran again without a reason: {describe(before)}, "
                    f"then {describe(after)} without a fault to explain it"
                )


def explains_repeat(blow: Blow, before: Run, after: Run) -> bool:
    """Tell whether a blow is why a task was given to somebody again."""
    if not blow.hits(before) or blow.began > after.began:
        return False
    if blow.is_deadly:
        # It died with the task, or between its end and its acknowledgement. Dead, it runs no longer.
        ended = FOREVER if before.ended is None else before.ended
        overlaps = before.ended is not None and after.began < before.ended
        return before.began <= blow.ended and blow.began <= ended + ACKNOWLEDGE_SECONDS and not overlaps
    ended = after.began if before.ended is None else before.ended
    during = before.began <= blow.ended + LATE_SECONDS and blow.began <= ended + ACKNOWLEDGE_SECONDS
    if blow.kind == "restart redis":
        return during
    stands_still = blow.kind in ("freeze main", "freeze worker")
    return stands_still and during and blow.ended - blow.began > SHORTEST_LEASE_SECONDS


def find_unfinished(record: Record) -> Iterator[str]:
    """Runs that came to no end though nothing killed their process."""
    for run in record.runs:
        killed = any(blow.is_deadly and blow.hits(run) and blow.ended >= run.began for blow in record.blows)
        if run.ended is None and not killed:
            yield f"task {run.task} broke off: {describe(run)}, and nothing killed it"


def find_failed(record: Record) -> Iterator[str]:
    """Runs that failed though no fault was dealt in their container: not delivery's doing, but worth a look."""
    for run in record.runs:
        if run.ended is None or not run.failed:
            continue
        hurt = any(
            blow.box == run.box and blow.began <= run.ended and blow.ended >= run.began for blow in record.blows
        )
        if not hurt:
            yield f"task {run.task} failed: {describe(run)}, and nothing was done to it"


def find_remains(record: Record) -> Iterator[str]:
    """What a quiet end leaves behind."""
    ending = record.ending
    for name, count in (("waiting", ending.waiting), ("held", ending.held)):
        if count:
            yield f"{count} messages still {name} at the end"
    for key in ending.keys:
        if not OUR_MARKS.fullmatch(key) and not CELERYS_KEYS.fullmatch(key):
            yield f"the key {key} is left in Redis"
    for box, code in ending.exit_codes.items():
        if code != 0:
            yield f"container {box} ended with {code}"
    for process in ending.defunct:
        yield f"{process} is defunct"
    for process in ending.browsers:
        yield f"{process} has no task"


def describe(run: Run) -> str:
    """Name a run."""
    ended = "no end" if run.ended is None else f"{run.ended:.2f}"
    return f"{run.box}/{run.main}/{run.child} {run.began:.2f} to {ended}"
