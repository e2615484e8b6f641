"""Which task of which pool a person means, and how long it usually takes: from the history."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from recyclery.history.reader import History, Run

# The newest runs of a pool say how long its tasks take now.
LATEST_RUNS = 2000
FOREVER = 1e11


class NotClear(Exception):
    """There is no such task, or more than one; the message says which there are."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One task of one pool, and how long its runs took so far; None where that is not known."""

    pool: str
    task: str
    usual_seconds: float | None


def choose_task(history: History, name: str, pool: str | None) -> Chosen:
    """Return the task that has this name, else the one that has it in its name; raises NotClear."""
    runs = {at: history.runs(at, 0.0, FOREVER, LATEST_RUNS) for at in history.pools() if pool in {None, at}}
    # Sums are made of runs by and by: what ran just now is not among them.
    latest = {(at, task) for at, latest in runs.items() for run in latest for task in run.tasks}
    ran = sorted((at, task) for at, task in latest | history.totals().keys() if task and pool in {None, at})
    found = [(at, task) for at, task in ran if task == name] or [(at, task) for at, task in ran if name in task]
    if not found and pool is not None:
        # It may be about to run for the first time: the pool's worker knows whether there is one.
        return Chosen(pool, name, None)
    if not found:
        known = ", ".join(sorted({task for _, task in ran})) or "none yet"
        raise NotClear(
            f"no task that ran has {name!r} in its name: there are {known}; "
            "one that has not run yet is traced by its full name, with --pool"
        )
    if len({task for _, task in found}) > 1:
        raise NotClear(f"{name!r} may be {', '.join(sorted({task for _, task in found}))}: name one of them")
    if len(found) > 1:
        raise NotClear(f"{found[0][1]} ran in {', '.join(at for at, _ in found)}: name one with --pool")
    ((at, task),) = found
    return Chosen(at, task, usual_seconds(runs.get(at, ()), task))


def usual_seconds(runs: Iterable[Run], task: str) -> float | None:
    """Return the median of how long single runs of a task took; short ones are only known together."""
    seconds = [
        run.seconds for run in runs if run.tasks == {task: 1} and run.outcome == "done" and run.seconds > 0
    ]
    return median(seconds) if seconds else None
