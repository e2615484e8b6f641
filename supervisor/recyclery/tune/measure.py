"""Measures one level: starts a supervisor on the tuning's queue, gives it tasks, and watches."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from recyclery.history.reader import Run
from recyclery.observe.cgroup import allowed_cores
from recyclery.tune.course import FEWEST_TASKS, Enough, Goal, Going, Span, Stopped, describe_window, judge
from recyclery.tune.kept import child_peaks
from recyclery.tune.looks import Look, tree_cpu_seconds
from recyclery.tune.marks import Marks, MarksFile
from recyclery.tune.open_loop import OpenWindow, count_backlog
from recyclery.tune.sending import Sending
from recyclery.tune.stage import Stage, marks_file, supervisor_environment
from recyclery.tune.windows import Level, Window
from recyclery_worker.link import now
from recyclery_worker.tuned.orders import Arrive, Fill, Rest, Sweep
from recyclery_worker.tuned.space import Space

STEP_SECONDS = 0.25
LOOK_SECONDS = 0.5
# It goes through all processes there are.
CPU_SECONDS = 2.0
# The floor of a pool that has just started still moves for a moment.
SETTLE_LOOKS = 3
# How long after the last arrival of an open loop its tasks may still end.
TAIL_SECONDS = 60.0


class EveryTaskFailed(Exception):
    """There is nothing to measure; the message has the errors."""


@dataclass(frozen=True, slots=True)
class Voice:
    """Where is said how far it is, again and again, and what is worth a line of its own."""

    progress: Callable[[str], None]
    note: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Bench:
    """What all levels are measured with."""

    pool: str
    options: tuple[str, ...]
    """Of `recyclery run`."""
    environment: Mapping[str, str]
    grace_seconds: float
    space: Space
    sending: Sending
    folder: Path
    """Short, for sockets live in it."""
    least_seconds: float
    most_seconds: float
    voice: Voice

    @property
    def ours(self) -> tuple[int, ...]:
        """The processes that are only there to measure."""
        return os.getpid(), self.sending.pid


@dataclass
class Watched:
    """What has been seen so far of a level in work."""

    stage: Stage
    base: Look
    file: MarksFile
    ours: tuple[int, ...]
    marks: Marks = field(default_factory=Marks)
    looks: list[Look] = field(default_factory=list)
    cpu: list[tuple[float, float]] = field(default_factory=list)

    def step(self) -> None:
        """Wait a little, then take in what has come."""
        time.sleep(STEP_SECONDS)
        self.marks.take_in(self.file.read())
        at = now()
        if not self.looks or at - self.looks[-1].at >= LOOK_SECONDS:
            seen = self.stage.look(self.ours)
            if seen is not None:
                self.looks.append(seen)
        if not self.cpu or at - self.cpu[-1][0] >= CPU_SECONDS:
            self.read_cpu()

    def read_cpu(self) -> None:
        """Take down the CPU time used so far."""
        self.cpu.append((now(), tree_cpu_seconds(self.stage.guard_pid)))


@contextmanager
def watched(bench: Bench, level: Level, number: int) -> Iterator[Watched]:
    """Start a supervisor at a level, yield it once it takes tasks, and leave nothing of it."""
    folder = bench.folder / str(number)
    folder.mkdir()
    environment = supervisor_environment(bench.environment, bench.space, bench.pool, level, folder)
    file = MarksFile(marks_file(folder))
    try:
        with Stage(pool=bench.pool, options=bench.options, environment=environment, folder=folder) as stage:
            base = stage.wait_until_serving(bench.ours)
            for _ in range(SETTLE_LOOKS):
                time.sleep(STEP_SECONDS)
                base = stage.look(bench.ours) or base
            yield Watched(stage, base, file, bench.ours)
    finally:
        file.close()


def measure(bench: Bench, level: Level, repeat: int, number: int) -> tuple[Window, list[Run]]:
    """Measure a level while tasks always wait; return also the history's runs.

    Raises StageFailed, CannotSend or EveryTaskFailed.
    """
    goal = Goal(level, bench.least_seconds, bench.most_seconds)
    with watched(bench, level, number) as seen:
        marks_path = str(marks_file(bench.folder / str(number)))
        began = now()
        bench.sending.order(Fill(marks_path, 2 * level.concurrency + 2))
        verdict: Going | Enough | Stopped = Going(0)
        while isinstance(verdict, Going):
            seen.step()
            bench.sending.check()
            check_failures(seen.marks)
            verdict = judge(seen.marks, [seen.base, *seen.looks], goal, began, now())
            if isinstance(verdict, Going):
                bench.voice.progress(f"{verdict.done} of {goal.least_tasks} tasks")
        seen.read_cpu()
        rest = bench.sending.order(Rest())
        if isinstance(verdict, Enough):
            span, stopped = verdict.span, ""
            seen.stage.stop(bench.grace_seconds)
        else:
            # Its tasks are not waited for: there is no room for them.
            span, stopped = Span(began, now()), verdict.reason
            seen.stage.kill()
        runs = seen.stage.runs()
    bench.sending.order(Sweep())
    if rest.sent_by_tasks:
        bench.voice.note(f"the tasks themselves sent {rest.sent_by_tasks} messages: set aside, and removed")
    window = describe_window(
        goal=goal,
        repeat=repeat,
        span=span,
        marks=seen.marks,
        looks=seen.looks,
        cpu=seen.cpu,
        cores=allowed_cores(Path("/sys/fs/cgroup")),
        base=seen.base,
        child_peaks=child_peaks(runs),
        stopped=stopped,
    )
    return window, runs


def check_failures(marks: Marks) -> None:
    """Raise EveryTaskFailed where the first tasks did, without one that did not."""
    errors = marks.errors()
    if len(marks.ends) >= FEWEST_TASKS and errors.total() == len(marks.ends):
        ((most, _),) = errors.most_common(1)
        raise EveryTaskFailed(
            f"the first {len(marks.ends)} tasks all failed, most of them with {most}: try one by hand with the "
            "same arguments"
        )


def measure_open(bench: Bench, level: Level, load: str, times: list[float], number: int) -> OpenWindow:
    """Measure a level while tasks come at `times`, seconds from the begin. Raises StageFailed or CannotSend."""
    goal = Goal(level, bench.least_seconds, bench.most_seconds)
    with watched(bench, level, number) as seen:
        begin = now() + 1.0
        end = begin + times[-1]
        due = [begin + each for each in times]
        bench.sending.order(Arrive(str(marks_file(bench.folder / str(number))), due))
        stopped = ""
        while not stopped and now() < end + TAIL_SECONDS:
            seen.step()
            bench.sending.check()
            verdict = judge(seen.marks, [seen.base, *seen.looks], goal, begin, begin)
            stopped = verdict.reason if isinstance(verdict, Stopped) else ""
            came = sum(each <= now() for each in due)
            bench.voice.progress(f"{load}: {came} of {len(due)} came, {len(seen.marks.ends)} ended")
            if len(seen.marks.ends) == len(due):
                break
        seen.read_cpu()
        backlog_middle, backlog_end = (
            count_backlog(seen.marks.tasks.values(), at) for at in ((begin + end) / 2, end)
        )
        bench.sending.order(Rest())
        seen.stage.stop(bench.grace_seconds)
        runs = seen.stage.runs()
    bench.sending.order(Sweep())
    window = describe_window(
        goal=goal,
        repeat=0,
        span=Span(begin, max(end, now())),
        marks=seen.marks,
        looks=seen.looks,
        cpu=seen.cpu,
        cores=allowed_cores(Path("/sys/fs/cgroup")),
        base=seen.base,
        child_peaks=child_peaks(runs),
        stopped=stopped,
    )
    return OpenWindow(
        load=load,
        offered_per_second=len(times) / (end - begin),
        backlog_middle=backlog_middle,
        backlog_end=backlog_end,
        unfinished=len(due) - len(seen.marks.ends),
        window=replace(window, seconds=end - begin),
    )
