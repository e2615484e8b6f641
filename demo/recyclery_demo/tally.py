"""What became of the tasks, counted from what they left in Redis; no I/O here."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Tally:
    """The fate of every scraping task.

    succeeded   done at least once
    duplicates  completions beyond the first
    failed      the result is FAILURE and the task was never done
    queued      neither done nor failed, but still waiting in the queue after the workers stopped
    lost        none of these: nobody will ever run it
    """

    succeeded: int
    duplicates: int
    failed: int
    queued: int
    lost: int


def count_tasks(
    numbers: Iterable[int],
    times_done: Mapping[int, int],
    failed: Collection[int],
    queued: Collection[int] = (),
) -> Tally:
    """Sort the numbers into the fates of a Tally; being done beats every other sign."""
    undone = set()
    succeeded = duplicates = 0
    for number in numbers:
        times = times_done.get(number, 0)
        if times > 0:
            succeeded += 1
            duplicates += times - 1
        else:
            undone.add(number)
    failures = undone & set(failed)
    waiting = (undone - failures) & set(queued)
    return Tally(succeeded, duplicates, len(failures), len(waiting), len(undone - failures - waiting))


def percentile(values: Iterable[float], percent: float) -> float | None:
    """Return the nearest-rank percentile, or None where there are no values."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
