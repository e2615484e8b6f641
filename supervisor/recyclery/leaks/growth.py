"""Classifies how much memory each task leaves behind, and whether that is a leak, steps, a cache or nothing.

A child's life is divided, for each of its tasks, by how often the child ran that task before. A cache fills in
the first half of a life, a leak grows in the second half too.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from recyclery.common.statistics import t_quantile
from recyclery.decide.max_tasks import MIN_LEAK_BYTES
from recyclery.history.reader import StoredRun
from recyclery.history.records import PLACES
from recyclery.leaks.regression import Difference, Fit, fit_kinds, without_odd

# With fewer runs of a task in a child's life, growth that would level off cannot be told from a leak.
JUDGED_LIFE = 8
# Runs on either side that make a stretch of a life worth a coefficient of its own.
STRETCH_RUNS = 4
# With fewer runs, or fewer after the first half of the longest life, the shape is undecided.
JUDGED_STEPS = 40
JUDGED_LATE_STEPS = 16
# Growth that is certainly below this counts as none.
PLATEAU_BYTES = 2 * MIN_LEAK_BYTES
# Growth is in steps if this share of the runs leaves at least two fifths of it.
STEP_TASKS = 0.05
STEP_SHARE = 0.4
# A step exceeds this multiple of the noise and of the median run; one or two such runs are chance.
STEP_NOISES = 5.0
STEP_MEDIANS = 8.0
MIN_STEPS = 3
# Confidence of the interval, of one-sided tests, and of the test for slower growth.
SURE = 0.975
ONE_SIDED = 0.95
SLOWER = 0.99
# A smaller warm-up, over half a life, counts as none.
LEAST_WARM_UP_BYTES = 2 << 20
# Growth in the second half of a life levels off if it is certainly below this share of the first half's.
SLOWER_SHARE = 0.9
# The same for the last quarter, compared with the third.
LASTING_SHARE = 0.8

Shape = Literal["leak", "step", "plateau", "none", "undecided"]
# For each run how often its child ran each of its tasks before.
Positions = Sequence[Mapping[str, int]]
ORDER: tuple[Shape, ...] = ("undecided", "plateau", "none")


@dataclass(frozen=True, slots=True)
class PlaceGrowth:
    """What one run leaves in one place, with its 95 % interval."""

    mean_bytes: float = 0.0
    low_bytes: float = -math.inf
    high_bytes: float = math.inf
    shape: Shape = "undecided"


@dataclass(frozen=True, slots=True)
class TaskGrowth:
    """The growth of one task: `runs` were measured of `seen`; `life` is a long child's number of runs of it."""

    task: str
    runs: int
    seen: int
    children: int
    life: int
    places: Mapping[str, PlaceGrowth]
    first_ended: float = 0.0

    @property
    def left_bytes(self) -> float:
        """Bytes left by all runs, except a child's first one; 0 if they leave nothing."""
        return max(0.0, self.mean_bytes) * self.runs if self.shape != "none" else 0.0

    @property
    def place(self) -> str:
        """The place of its leak, else one that certainly grows, else the one that grows most."""

        def weight(name: str) -> tuple[bool, bool, float]:
            growth = self.places[name]
            return is_leak(growth.shape), growth.low_bytes > 0, growth.mean_bytes

        return max(self.places, key=weight)

    @property
    def shape(self) -> Shape:
        """The worst shape of all places."""
        shapes = {growth.shape for growth in self.places.values()}
        if shapes & {"leak", "step"}:
            return self.places[self.place].shape
        return next((shape for shape in ORDER if shape in shapes), "undecided")

    @property
    def sure(self) -> list[PlaceGrowth]:
        """The places that certainly grow or shrink, else all: uncertain ones would only blur the sum."""
        growths = list(self.places.values())
        return [growth for growth in growths if growth.low_bytes > 0 or growth.high_bytes < 0] or growths

    @property
    def mean_bytes(self) -> float:
        """What a run leaves in all places together."""
        return sum(growth.mean_bytes for growth in self.sure)

    @property
    def margin_bytes(self) -> float:
        """Half the width of the mean's 95 % interval."""
        return math.hypot(*(growth.high_bytes - growth.mean_bytes for growth in self.sure))


def is_leak(shape: Shape) -> bool:
    """Return whether growth of this shape never ends."""
    return shape in {"leak", "step"}


@dataclass
class Stretches:
    """How one task's runs are divided by position in the child's life: halves and quarters, or one stretch.

    A child's very first run of the task is a kind of its own: it imports, connects, and opens what later runs
    reuse.
    """

    half: int
    three_quarters: int
    life: int
    first: int | None
    kinds: list[int]
    runs: list[int]

    def kind_of(self, position: int) -> int:
        """Return the kind of a run that follows this many runs of the same task."""
        if position == 0 and self.first is not None:
            return self.first
        stretch = (position >= self.half) + (position >= self.three_quarters)
        return self.kinds[min(len(self.kinds) - 1, stretch)]


def classify_growth(runs: Sequence[StoredRun]) -> list[TaskGrowth]:
    """Classify every task of one pool; its runs are ordered by child and time."""
    positions = count_earlier(runs)
    stretches = divide_lives(runs, positions)
    fits = {place: fit_place(runs, positions, stretches, place) for place in PLACES}
    growths = []
    for task, stretch in stretches.items():
        own = [run for run in runs if task in run.tasks]
        growth = TaskGrowth(
            task=task,
            runs=sum(stretch.runs),
            seen=sum(run.tasks[task] for run in own),
            children=len({run.child for run in own}),
            life=stretch.life,
            places={place: classify_place(stretch, fit) for place, fit in fits.items()},
            first_ended=min(run.ended for run in own),
        )
        growths.append(growth)
    return growths


def count_earlier(runs: Sequence[StoredRun]) -> Positions:
    """Return for each run how often its child ran each of its tasks before.

    If the beginning of a child's life was not recorded, the same mix of tasks as in the record is assumed.
    """
    totals: Counter[str] = Counter()
    for run in runs:
        totals.update(run.tasks)
    everything = max(1, totals.total())
    known: dict[tuple[int, str], int] = {}
    unrecorded: dict[int, int] = {}
    positions = []
    for run in runs:
        before = unrecorded.setdefault(run.child, run.place)
        counts = {}
        for task, count in run.tasks.items():
            counts[task] = known.get((run.child, task), before * totals[task] // everything)
            known[run.child, task] = counts[task] + count
        positions.append(counts)
    return positions


def divide_lives(runs: Sequence[StoredRun], positions: Positions) -> dict[str, Stretches]:
    """Return the stretches of each task's measured runs; kinds are numbered across all tasks."""
    found: dict[str, list[int]] = defaultdict(list)
    for run, counts in zip(runs, positions, strict=True):
        if left_in(run, "python") is not None:
            for task, count in run.tasks.items():
                found[task] += [counts[task]] * count
    stretches = {}
    kind = 0
    for task, all_positions in found.items():
        # A long life: the 90th percentile.
        life = sorted(all_positions)[len(all_positions) * 9 // 10] + 1
        half, three_quarters = (life + 1) // 2, math.ceil(life * 3 / 4)
        first, later = None, [position for position in all_positions if position]
        if STRETCH_RUNS <= len(later) < len(all_positions):
            first, kind = kind, kind + 1
        else:
            later = all_positions
        late, last = (sum(position >= begin for position in later) for begin in (half, three_quarters))
        parts = [len(later) - late, late - last, last]
        if life < JUDGED_LIFE or min(parts) < STRETCH_RUNS:
            parts = [len(later)]
        stretches[task] = Stretches(
            half, three_quarters, life, first, list(range(kind, kind + len(parts))), parts
        )
        kind += len(parts)
    return stretches


def left_in(run: StoredRun, place: str) -> int | None:
    """Return the bytes that a run left in one place; None if it was not measured."""
    if run.before is None or run.after is None or (place in {"browser", "other"} and not run.browser_seen):
        return None
    after: int = getattr(run.after, place)
    before: int = getattr(run.before, place)
    return after - before


def fit_place(
    runs: Sequence[StoredRun], positions: Positions, stretches: Mapping[str, Stretches], place: str
) -> Fit | None:
    """Fit one place; None if nothing ever changed there."""
    if not any(left_in(run, place) for run in runs):
        return None
    kinds = sum(len(stretch.kinds) + (stretch.first is not None) for stretch in stretches.values())
    differences: list[Difference] = []
    child, end = -1, 0
    for run, counts in zip(runs, positions, strict=True):
        left = left_in(run, place)
        # The same reading ends one run and begins the child's next one.
        joined = child == run.child and end == run.place
        child, end = (run.child, run.place + sum(run.tasks.values())) if left is not None else (-1, 0)
        if left is not None:
            mix: Counter[int] = Counter()
            for task, count in run.tasks.items():
                mix[stretches[task].kind_of(counts[task])] += count
            differences.append(Difference(mix, left, joined))
    return fit_kinds(without_odd(differences), kinds)


def classify_place(stretch: Stretches, fit: Fit | None) -> PlaceGrowth:
    """Return one task's growth in one place."""
    if fit is None:
        # Nothing was ever there: a few runs are enough to know.
        return PlaceGrowth(0.0, 0.0, 0.0, "none" if sum(stretch.runs) >= STRETCH_RUNS else "undecided")
    return Classifier(stretch, fit).classify()


class Classifier:
    """Classifies one task's growth in one place. Means are bytes per run, each with its standard error."""

    def __init__(self, stretch: Stretches, fit: Fit) -> None:
        self._stretch = stretch
        self._fit = fit
        self._runs = sum(stretch.runs)
        self._parts = len(stretch.runs)
        if self._parts > 1:
            self._early = self._combine([1, 0, 0])
            self._late = self._combine([0, *stretch.runs[1:]])
        self._levels_off = self._parts > 1 and self._is_slower()

    def classify(self) -> PlaceGrowth:
        """Return mean, interval and shape; growth that levels off is described by its second half."""
        mean, error = self._combine(self._stretch.runs)
        is_stepped = self._runs >= JUDGED_STEPS and self._is_stepped()
        if self._levels_off and not is_stepped:
            mean, error = self._late
        margin = t_quantile(SURE, max(3, self._runs - 1)) * error
        shape = "step" if is_stepped else self._name_shape(mean + margin)
        return PlaceGrowth(mean, mean - margin, mean + margin, shape)

    def _combine(self, weights: Sequence[float]) -> tuple[float, float]:
        """Return the weighted mean of the stretches; weights that sum to 0 are taken as they are."""
        total = sum(weights) or 1
        weighted = zip(self._stretch.kinds, weights, strict=True)
        return self._fit.combine({kind: weight / total for kind, weight in weighted if weight})

    def _is_slower(self) -> bool:
        """Return whether growth in the second half of a life is certainly slower than in the first."""
        late_runs = sum(self._stretch.runs[1:])
        difference, error = self._combine([1.0, *(-count / late_runs for count in self._stretch.runs[1:])])
        early, _ = self._early
        sure_error = t_quantile(SLOWER, max(3, self._runs - 2)) * error
        return difference > sure_error and early - difference < SLOWER_SHARE * early

    def _name_shape(self, high: float) -> Shape:
        """Return the shape of a growth without steps; undecided if it could be another one."""
        if self._runs < JUDGED_STEPS:
            return "undecided" if self._runs < JUDGED_LATE_STEPS or high > PLATEAU_BYTES else "none"
        if self._parts == 1:
            return "none" if high < PLATEAU_BYTES else "undecided"
        quantile = t_quantile(ONE_SIDED, self._runs - 2)
        late, error = self._late
        if late - quantile * error > MIN_LEAK_BYTES:
            return "leak" if self._goes_on(quantile) else "undecided"
        if late + quantile * error < PLATEAU_BYTES:
            early, early_error = self._early
            warm_up = (early - quantile * early_error) * self._stretch.half
            return "plateau" if warm_up > LEAST_WARM_UP_BYTES and self._levels_off else "none"
        return "undecided"

    def _goes_on(self, quantile: float) -> bool:
        """Return whether growth in the second half of a life declines less than that of a filling cache.

        A cache's growth declines by a constant factor from each quarter of a life to the next, which is the
        square root of its decline from half to half. Growth that declined must certainly be above that.
        """
        decline, error = self._combine([0.0, 1.0, -1.0])
        third = max(0.0, self._combine([0, 1, 0])[0])
        if not self._levels_off:
            return decline - quantile * error < (1 - LASTING_SHARE) * third
        cache_decline = third * (1 - math.sqrt(max(0.0, self._late[0]) / self._early[0]))
        return decline + quantile * error < cache_decline

    def _is_stepped(self) -> bool:
        """Return whether few runs leave most of the growth, and not only at the beginning of a life."""
        kinds = self._stretch.kinds[1:] if self._levels_off else self._stretch.kinds
        left = sorted((size for kind in kinds for size in self._fit.singles.get(kind, ())), reverse=True)
        if len(left) < JUDGED_LATE_STEPS or fmean(left) <= MIN_LEAK_BYTES:
            return False
        least = max(STEP_NOISES * self._fit.noise_bytes, STEP_MEDIANS * abs(left[len(left) // 2]))
        steps = [size for size in left[: math.ceil(STEP_TASKS * len(left))] if size > least]
        return len(steps) >= MIN_STEPS and sum(steps) >= STEP_SHARE * sum(size for size in left if size > 0)
