"""Judges a record: every task done, and done twice only where a fault that was dealt explains it."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from chaos.record import FOREVER, LONGEST_SECONDS, Blow, Event, Look, Record, Run

# A result reaches the worker's main process and its acknowledgement Redis within this, on a busy machine.
ACKNOWLEDGE_SECONDS = 5.0
# A worker that stood still for less than this had its lease all the time: 10 s, renewed every 2 s.
SHORTEST_LEASE_SECONDS = 5.0
# A lease that ran out during a fault may be acted upon this much later.
LATE_SECONDS = 15.0
# What a cold stop cuts off is in its queue again before a lease could have run out.
GIVE_BACK_SECONDS = 6.0
# A task is sent a moment after its time was reckoned, and clocks are read in whole milliseconds.
EARLY_SECONDS = 0.5
# What Celery itself leaves: its exchanges, and a killed worker's queue for answers of others.
CELERYS_KEYS = re.compile(r"_kombu\.binding.*|[0-9a-f-]{36}\.reply\.celery\.pidbox")

# What is kept for some days, as docs/guarantees.md says.
OUR_MARKS = re.compile(r"recyclery:(\w+:reclaimed|deaths:.+|parked)")
GARBAGE = re.compile(rb"garbage-(\d+)")


def audit(record: Record) -> list[str]:
    """Return what is wrong, a line for each; nothing where all is as promised."""
    return [
        *find_lost(record),
        *find_repeats(record),
        *find_unfinished(record),
        *find_unfailed(record),
        *find_early(record),
        *find_unparked(record),
        *find_wrongly_dead(record),
        *find_deaths(record),
        *find_kept(record),
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


def find_unfailed(record: Record) -> Iterator[str]:
    """Tasks that raised MemoryError and did not fail."""
    for run in record.runs:
        if run.task in record.failing and run.ended is not None and not run.failed:
            yield f"task {run.task} did not fail: {describe(run)}, for all its MemoryError"


def find_early(record: Record) -> Iterator[str]:
    """Runs before a countdown was over, where the clock was right."""
    for run in record.runs:
        due = record.due.get(run.task)
        if due is None or run.began > due - EARLY_SECONDS:
            continue
        # What is received while the clock is wrong is held for a wrong time, also when it is right again.
        set_before = (blow for blow in record.blows if blow.kind == "step container" and blow.box == run.box)
        if not any(blow.began <= run.began for blow in set_before):
            yield f"task {run.task} ran {due - run.began:.1f} s too early: {describe(run)}"


def find_unparked(record: Record) -> Iterator[str]:
    """Garbage that is not in the parked list as it came and once, and what is there and is none."""
    parked = Counter(map(number_of, record.ending.parked))
    contents = {number_of(item): item for item in record.ending.parked}
    for number, item in record.garbage.items():
        if parked[number] != 1:
            yield f"garbage {number} is parked {parked[number]} times: {item[:40]!r}"
        elif not is_same(contents[number], item):
            yield f"garbage {number} is parked as {contents[number][:200]!r}, and was {item[:200]!r}"
    if None in parked:
        yield f"{parked[None]} parked messages are no garbage: {contents[None][:200]!r}"


def number_of(item: bytes) -> int | None:
    """Return the number that garbage has in it."""
    return int(found[1]) if (found := GARBAGE.search(item)) else None


def is_same(one: bytes, other: bytes) -> bool:
    """Tell whether two messages are the same; JSON may be written in more than one way."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except (ValueError, RecursionError):
        return one == other


def find_wrongly_dead(record: Record) -> Iterator[str]:
    """Workers that were taken for dead and had not stood still: a clock, a connection or a load did that."""
    for event in record.taken_for_dead:
        if not any(blow.box == event.box and is_long_freeze(blow, event.at) for blow in record.blows):
            yield f"a living worker of {event.box} was taken for dead at {event.at:.2f}: {event.text}"


def is_long_freeze(blow: Blow, at: float) -> bool:
    """Tell whether a blow that let a worker stand still for longer than its lease may show at a time."""
    stood_still = blow.kind in ("freeze main", "freeze worker")
    lasted = blow.ended - blow.began > SHORTEST_LEASE_SECONDS
    return stood_still and lasted and blow.began <= at <= blow.ended + LATE_SECONDS


def find_deaths(record: Record) -> Iterator[str]:
    """Main processes that ended though nothing ended them, each with what its container had printed before."""
    for event in record.deaths:
        if not any(explains_death(blow, event, record.runs) for blow in record.blows):
            ended = f"the main process {event.main} of {event.box} ended at {event.at:.2f}: {event.text}"
            yield "\n    ".join((ended, *event.before))


def explains_death(blow: Blow, event: Event, runs: Sequence[Run]) -> bool:
    """Tell whether a blow is why a main process ended as it did."""
    if blow.box != event.box:
        return False
    names_it = event.main in blow.mains or not (blow.mains or blow.children)
    is_near = blow.began <= event.at <= blow.ended + LATE_SECONDS
    if blow.kind == "replace":
        # A worker that is just starting has no handler for it yet. One that stops with a task cut off says so.
        return names_it and is_near and (event.text.endswith("SIGTERM") or has_lost_task(event, runs))
    return (blow.is_deadly and is_near and (names_it or blow.kind == "oom kill")) or is_long_freeze(
        blow, event.at
    )


def has_lost_task(event: Event, runs: Sequence[Run]) -> bool:
    """Tell whether a main process ended with 1 because a task's child was killed while it stopped."""
    return event.text == "exit status 1" and any(
        (run.box, run.main, run.ended) == (event.box, event.main, None)
        and 0 <= event.at - run.began <= LONGEST_SECONDS + LATE_SECONDS
        for run in runs
    )


def find_kept(record: Record) -> Iterator[str]:
    """Cold stops after which messages lay about, with no other fault to explain it."""
    for kept in record.kept:
        others = (blow for blow in record.blows if not blow.kind.startswith(("quit", "step")))
        hurt = any(
            blow.began <= kept.ended and blow.ended >= kept.began and (blow.hits_redis or blow.box == kept.box)
            for blow in others
        )
        if kept.ended - kept.began > GIVE_BACK_SECONDS and not hurt:
            seconds = kept.ended - kept.began
            yield f"a cold stop in {kept.box} at {kept.began:.2f} left messages lying for {seconds:.1f} s"


def find_failed(record: Record) -> Iterator[str]:
    """Runs that failed though no fault was dealt in their container: not delivery's doing, but worth a look."""
    for run in record.runs:
        if run.ended is None or not run.failed or run.task in record.failing:
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
