"""A child's life as one of its tasks has it: how often it was run before, and in which stretch of the life."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recyclery.history.reading import Run

# A child that runs a task less often than this in its life does not show whether its growth would level off.
JUDGED_LIFE = 8
# So many runs on either side make a stretch of a life worth a coefficient of its own.
STRETCH_RUNS = 4


@dataclass
class Stretches:
    """How one task's life is divided: its first half, third and last quarter, or one stretch for all.

    A child's very first run of it stands apart: it imports, connects, and opens what is kept for the next ones.
    """

    half: int
    three_quarters: int
    life: int
    first: int | None
    kinds: list[int]
    runs: list[int]

    def kind_of(self, place: int) -> int:
        """Return the kind of a run that so many of the same task came before."""
        if place == 0 and self.first is not None:
            return self.first
        return self.kinds[min(len(self.kinds) - 1, (place >= self.half) + (place >= self.three_quarters))]


def count_own(runs: Sequence[Run]) -> list[dict[str, int]]:
    """Return for each run how many of each of its tasks its child had run before.

    Of a child whose beginning is not known, its tasks are taken to have been mixed then as they are now.
    """
    totals: dict[str, int] = defaultdict(int)
    for run in runs:
        for task, count in run.tasks.items():
            totals[task] += count
    everything = max(1, sum(totals.values()))
    seen: dict[tuple[int, str], int] = {}
    begun: dict[int, int] = {}
    counted = []
    for run in runs:
        before = begun.setdefault(run.child, run.place)
        counts = {}
        for task, count in run.tasks.items():
            known = seen.get((run.child, task), before * totals[task] // everything)
            counts[task] = known
            seen[run.child, task] = known + count
        counted.append(counts)
    return counted


def divide_lives(runs: Sequence[Run], own: Sequence[Mapping[str, int]]) -> dict[str, Stretches]:
    """Return each task's stretches, of those of its runs that were measured, with kinds numbered through."""
    places: dict[str, list[int]] = defaultdict(list)
    for run, counts in zip(runs, own, strict=True):
        if left_in(run, "python") is not None:
            for task, count in run.tasks.items():
                places[task] += [counts[task]] * count
    stretches = {}
    kind = 0
    for task, seen in places.items():
        # A long life: one that nine tenths of the runs do not pass.
        life = sorted(seen)[len(seen) * 9 // 10] + 1
        half, three_quarters = (life + 1) // 2, math.ceil(life * 3 / 4)
        later = [place for place in seen if place]
        first = None
        if len(later) >= STRETCH_RUNS and len(later) < len(seen):
            first, kind, seen = kind, kind + 1, later  # noqa: PLW2901  # what is divided further
        parts = [
            sum(place < half for place in seen),
            sum(half <= place < three_quarters for place in seen),
            sum(place >= three_quarters for place in seen),
        ]
        if life < JUDGED_LIFE or min(parts) < STRETCH_RUNS:
            parts = [len(seen)]
        kinds = list(range(kind, kind + len(parts)))
        stretches[task] = Stretches(half, three_quarters, life, first, kinds, parts)
        kind += len(parts)
    return stretches


def left_in(run: Run, place: str) -> int | None:
    """Return what a run left in one place; None where that was not seen."""
    if run.before is None or run.after is None or (place in {"browser", "other"} and not run.browser_seen):
        return None
    after: int = getattr(run.after, place)
    before: int = getattr(run.before, place)
    return after - before
