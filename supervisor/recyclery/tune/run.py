"""One tuning from its begin to its end: which window comes next, and what has been measured so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from recyclery.decide.memory_model import PoolModel
from recyclery.tune.course import Goal, describe_skipped
from recyclery.tune.kept import learn_runs
from recyclery.tune.measure import Bench, measure
from recyclery.tune.plan import Step, expect_seconds, list_ahead, plan_next, why_skip
from recyclery.tune.progress import Progress
from recyclery.tune.request import Request
from recyclery.tune.run_file import Closed, RunFile
from recyclery.tune.windows import Window


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
        """Measure what is missing, round by round."""
        while (step := plan_next(self.windows, self.request)) is not None:
            self._measure(step)

    def _measure(self, step: Step) -> None:
        why = why_skip(step.level, self.windows)
        if why:
            goal = Goal(step.level, self.bench.least_seconds, self.bench.most_seconds)
            window = describe_skipped(goal, step.repeat, self.windows[0] if self.windows else None, why)
        else:
            ahead = list_ahead(step.repeat, self.windows, self.request)
            left_seconds = sum(
                expect_seconds(level, self.windows, self.bench.least_seconds, self.bench.most_seconds)
                for level in ahead
            )
            done = len(self.windows)
            self.progress.begin(done, done + len(ahead), left_seconds, step.level)
            window, runs = measure(self.bench, step.level, step.repeat, next(self.numbers))
            self.learned = learn_runs(self.learned, runs)
        if window.stopped:
            self.progress.note(f"concurrency {step.level.concurrency} is given up: {window.stopped}")
        self.windows.append(window)
        self.file.add(Closed(window, self.learned))
