"""One tuning from its begin to its end: which window comes next, and what has been measured so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from recyclery.decide.model import PoolModel
from recyclery.tune.course import Goal, describe_skipped
from recyclery.tune.kept import learn_runs
from recyclery.tune.measure import Bench, measure
from recyclery.tune.plan import Step, expect_seconds, is_worth_more, order_repeats, why_skip
from recyclery.tune.progress import Progress
from recyclery.tune.request import Request
from recyclery.tune.run_file import Closed, RunFile
from recyclery.tune.windows import Level, Window


@dataclass
class Run:
    """A tuning under way."""

    request: Request
    bench: Bench
    file: RunFile
    progress: Progress
    windows: list[Window] = field(default_factory=list)
    """Those of a run that is resumed among them."""
    learned: PoolModel = field(default_factory=PoolModel)
    """What the tasks cost in memory."""
    numbers: Iterator[int] = field(default_factory=count)

    def measure_all(self) -> None:
        """Measure every level as often as was asked for, but for those that cannot fit.

        The first pass goes upwards: what a level needs is known before a higher one is tried.
        """
        for most in self.request.max_tasks:
            for concurrency in self.request.concurrencies:
                of_this = [w for w in self.windows if w.level.max_tasks_per_child == most and w.repeat == 0]
                below = [w for w in of_this if w.level.concurrency < concurrency]
                if not self.request.asked_for and not is_worth_more(below):
                    break
                self._measure(Step(Level(concurrency, most), 0))
        tried = {window.level for window in self.windows if not window.stopped}
        for step in order_repeats(tried, self.request.repeats, self.request.seed):
            self._measure(step)

    def _measure(self, step: Step) -> None:
        if any(w.level == step.level and w.repeat == step.repeat for w in self.windows):
            return
        why = why_skip(step.level, self.windows)
        if why:
            goal = Goal(step.level, self.bench.least_seconds, self.bench.most_seconds)
            window = describe_skipped(goal, step.repeat, self.windows[0] if self.windows else None, why)
        else:
            total = len(self.request.levels) * self.request.repeats
            self.progress.begin(len(self.windows), total, self._seconds_left(step), step.level)
            window, runs = measure(self.bench, step.level, step.repeat, next(self.numbers))
            self.learned = learn_runs(self.learned, runs)
        if window.stopped:
            self.progress.note(f"concurrency {step.level.concurrency} is given up: {window.stopped}")
        self.windows.append(window)
        self.file.add(Closed(window, self.learned))

    def _seconds_left(self, step: Step) -> float:
        done = {(w.level, w.repeat) for w in self.windows}
        levels = self.request.levels if step.repeat == 0 else {w.level for w in self.windows if not w.stopped}
        return sum(
            expect_seconds(level, self.windows, self.bench.least_seconds, self.bench.most_seconds)
            for level in levels
            for repeat in range(self.request.repeats)
            if (level, repeat) not in done
        )
