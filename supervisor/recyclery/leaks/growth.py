"""A child's life as one of its tasks has it: how often it was run before, and in which stretch of the life."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from recyclery.common.statistics import t_quantile
from recyclery.decide.max_tasks import LEAST_LEAK_BYTES
from recyclery.history.reader import Run
from recyclery.history.records import PLACES
from recyclery.leaks.regression import Difference, Fit, fit_kinds, without_odd

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


Shape = Literal["leak", "step", "plateau", "none", "undecided"]

# Fewer runs, or fewer after the first half of the longest life, decide nothing.
JUDGED_STEPS = 40
JUDGED_LATE_STEPS = 16
# Growth surely below this is none.
PLATEAU_BYTES = 2 * LEAST_LEAK_BYTES
# Growth is in steps if so few of the runs leave two fifths of it.
STEP_TASKS = 0.05
STEP_SHARE = 0.4
SURE = 0.975
ONE_SIDED = 0.95
SLOWER = 0.99
# A warm-up that comes to less than this, over half a life, is none.
LEAST_WARM_UP_BYTES = 2 << 20
# Growth in the second half of a life below this share of the first is levelling off, if the difference is sure.
SLOWER_SHARE = 0.9
# And so is that in the last quarter, beside the third.
LASTING_SHARE = 0.8
# A step is larger than so many times what readings are off by, and what the middle run leaves; two are chance.
STEP_NOISES = 5.0
STEP_USUAL = 8.0
LEAST_STEPS = 3


@dataclass(frozen=True, slots=True)
class PlaceGrowth:
    """What one run leaves in one place; it is between low and high with a chance of 95 %."""

    mean_bytes: float = 0.0
    low_bytes: float = -math.inf
    high_bytes: float = math.inf
    shape: Shape = "undecided"


@dataclass(frozen=True, slots=True)
class TaskGrowth:
    """One task: runs measured and seen, in how many children, a long life (in runs of it), and each place."""

    task: str
    runs: int
    seen: int
    children: int
    life: int
    places: Mapping[str, PlaceGrowth]
    first_ended: float = 0.0

    @property
    def left_bytes(self) -> float:
        """What its runs have left in all, a child's first one not counted; 0 where they leave nothing."""
        return max(0.0, self.mean_bytes) * self.runs if self.shape != "none" else 0.0

    @property
    def place(self) -> str:
        """Where it grows: the place of its leak, else where it surely does, else where most is left."""

        def weight(name: str) -> tuple[bool, bool, float]:
            growth = self.places[name]
            return is_leak(growth.shape), growth.low_bytes > 0, growth.mean_bytes

        return max(self.places, key=weight)

    @property
    def shape(self) -> Shape:
        """The worst of its places' shapes."""
        shapes = {growth.shape for growth in self.places.values()}
        if shapes & {"leak", "step"}:
            return self.places[self.place].shape
        return next((shape for shape in ORDER if shape in shapes), "undecided")

    @property
    def sure(self) -> list[PlaceGrowth]:
        """The places that surely grow or shrink, else all: what may be nothing would only blur the sum."""
        growths = list(self.places.values())
        return [growth for growth in growths if growth.low_bytes > 0 or growth.high_bytes < 0] or growths

    @property
    def mean_bytes(self) -> float:
        """What a run leaves in all places together."""
        return sum(growth.mean_bytes for growth in self.sure)

    @property
    def away_bytes(self) -> float:
        """How far off that may be."""
        return math.hypot(*(growth.high_bytes - growth.mean_bytes for growth in self.sure))


ORDER: tuple[Shape, ...] = ("undecided", "plateau", "none")


def judge_pool(runs: Sequence[Run]) -> list[TaskGrowth]:
    """Judge every task of one pool, from its runs child by child in their order."""
    own = count_own(runs)
    stretches = divide_lives(runs, own)
    fits = {place: fit_place(runs, own, stretches, place) for place in PLACES}
    children: dict[str, set[int]] = defaultdict(set)
    first: dict[str, float] = {}
    seen: Counter[str] = Counter()
    for run in runs:
        seen.update(run.tasks)
        for task in run.tasks:
            children[task].add(run.child)
            first[task] = min(run.ended, first.get(task, run.ended))
    return [
        TaskGrowth(
            task=task,
            runs=sum(stretch.runs),
            seen=seen[task],
            children=len(children[task]),
            first_ended=first[task],
            life=stretch.life,
            places={place: judge_place(stretch, fits[place]) for place in PLACES},
        )
        for task, stretch in stretches.items()
    ]


@dataclass(frozen=True, slots=True)
class Fitted:
    """What each stretch of each task leaves in one place, and what single runs left by their stretch's kind."""

    fit: Fit
    singles: Mapping[int, Sequence[float]]


def fit_place(
    runs: Sequence[Run], own: Sequence[Mapping[str, int]], stretches: Mapping[str, Stretches], place: str
) -> Fitted | None:
    """Fit one place; None where nothing ever changed."""
    if not any(left_in(run, place) for run in runs):
        return None
    kinds = sum(len(stretch.kinds) + (stretch.first is not None) for stretch in stretches.values())
    differences: list[Difference] = []
    child, end = -1, 0
    for run, counts in zip(runs, own, strict=True):
        left = left_in(run, place)
        joined = child == run.child and end == run.place
        child, end = (run.child, run.place + sum(run.tasks.values())) if left is not None else (-1, 0)
        if left is not None:
            mix: dict[int, int] = {}
            for task, count in run.tasks.items():
                kind = stretches[task].kind_of(counts[task])
                mix[kind] = mix.get(kind, 0) + count
            # Followed on by the next one of the same child: what is between them is one reading.
            differences.append(Difference(mix, left, joined))
    differences = without_odd(differences)
    singles: dict[int, list[float]] = defaultdict(list)
    for difference in differences:
        if difference.single:
            singles[next(iter(difference.runs))].append(difference.left_bytes)
    return Fitted(fit_kinds(differences, kinds), singles)


def judge_place(stretch: Stretches, fitted: Fitted | None) -> PlaceGrowth:
    """Judge one task's growth in one place."""
    runs = sum(stretch.runs)
    if fitted is None:
        # Nothing was ever there: a few runs are enough to say that.
        return PlaceGrowth(0.0, 0.0, 0.0, "none" if runs >= STRETCH_RUNS else "undecided")
    combine = combiner(stretch, fitted.fit)
    whole, whole_spread = combine(stretch.runs)
    away = t_quantile(SURE, max(3, runs - 1))
    mean, spread = whole, whole_spread
    levels_off = len(stretch.runs) > 1 and is_slower(stretch, combine)
    if levels_off:
        mean, spread = combine([0, *stretch.runs[1:]])
    low, high = mean - away * spread, mean + away * spread
    if runs >= JUDGED_STEPS and is_stepped(stretch, fitted, levels_off):
        return PlaceGrowth(whole, whole - away * whole_spread, whole + away * whole_spread, "step")
    return PlaceGrowth(mean, low, high, name_shape(stretch, combine, levels_off, high))


Combine = Callable[[Sequence[float]], tuple[float, float]]


def combiner(stretch: Stretches, fit: Fit) -> Combine:
    """Return a function that weighs a task's stretches: to a mean, or where weights cancel out, as given."""

    def combine(weights: Sequence[float]) -> tuple[float, float]:
        total = sum(weights)
        full = [0.0] * len(fit.means)
        for kind, weight in zip(stretch.kinds, weights, strict=True):
            full[kind] = weight / total if total else weight
        return fit.combine(full)

    return combine


def is_slower(stretch: Stretches, combine: Combine) -> bool:
    """Tell whether growth in the second half of a life is surely less than in the first."""
    late_runs = sum(stretch.runs[1:])
    late = [count / late_runs for count in stretch.runs[1:]]
    difference, spread = combine([1.0, *(-share for share in late)])
    early, _ = combine([1, 0, 0])
    away = t_quantile(SLOWER, max(3, sum(stretch.runs) - 2))
    return difference > away * spread and early - difference < SLOWER_SHARE * early


def name_shape(stretch: Stretches, combine: Combine, levels_off: bool, high: float) -> Shape:
    """Name the shape of a growth without steps; what could as well be another is undecided."""
    runs = sum(stretch.runs)
    if runs < JUDGED_STEPS:
        return "undecided" if runs < JUDGED_LATE_STEPS or high > PLATEAU_BYTES else "none"
    if len(stretch.runs) == 1:
        return "none" if high < PLATEAU_BYTES else "undecided"
    away = t_quantile(ONE_SIDED, runs - 2)
    late, spread = combine([0, *stretch.runs[1:]])
    if late - away * spread > LEAST_LEAK_BYTES:
        return "leak" if goes_on(stretch, combine, levels_off, away) else "undecided"
    if late + away * spread < PLATEAU_BYTES:
        early, early_spread = combine([1, 0, 0])
        warm_up = (early - away * early_spread) * stretch.half
        return "plateau" if warm_up > LEAST_WARM_UP_BYTES and levels_off else "none"
    return "undecided"


def goes_on(stretch: Stretches, combine: Combine, levels_off: bool, away: float) -> bool:
    """Tell whether growth in the second half of a life does not fall off as that of a filling cache does.

    Such a cache's growth falls by the same factor from any quarter of a life to the next, so by the root of
    what it falls by from half to half. Growth that fell before must surely do better than that.
    """
    fall, spread = combine([0.0, 1.0, -1.0])
    third, _ = combine([0, 1, 0])
    if not levels_off:
        return fall - away * spread < (1 - LASTING_SHARE) * max(0.0, third)
    early, _ = combine([1, 0, 0])
    late, _ = combine([0, *stretch.runs[1:]])
    cache = max(0.0, third) * (1 - math.sqrt(max(0.0, late) / early))
    return fall + away * spread < cache


def is_stepped(stretch: Stretches, fitted: Fitted, levels_off: bool) -> bool:
    """Tell whether few runs leave most of it, and not only those of a child's beginning."""
    kinds = stretch.kinds[1:] if levels_off else stretch.kinds
    left = sorted((growth for kind in kinds for growth in fitted.singles.get(kind, ())), reverse=True)
    if len(left) < JUDGED_LATE_STEPS or fmean(left) <= LEAST_LEAK_BYTES:
        return False
    largest = left[: math.ceil(STEP_TASKS * len(left))]
    # Beside what readings are off by, and what most runs leave.
    least = max(STEP_NOISES * fitted.fit.noise_bytes, STEP_USUAL * abs(left[len(left) // 2]))
    steps = [growth for growth in largest if growth > least]
    return len(steps) >= LEAST_STEPS and sum(steps) >= STEP_SHARE * sum(growth for growth in left if growth > 0)


def is_leak(shape: Shape) -> bool:
    """Tell whether growth of this shape goes on for ever."""
    return shape in {"leak", "step"}
