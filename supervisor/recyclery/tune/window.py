"""One window: what is measured in it, and when it begins and ends. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from recyclery.tune.samples import Look, Marks, TaskTimes, why_it_does_not_fit
from recyclery.tune.spec import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One measured window at one level, its warm-up left out.

    `waited_seconds` and `ran_seconds` belong to the tasks that ended in it, in the order they ended: the time
    from when a task was to come until it began, and from there until it ended.
    """

    level: Level
    repeat: int
    seconds: float
    waited_seconds: tuple[float, ...]
    ran_seconds: tuple[float, ...]
    errors: int
    base_floor_bytes: int
    """The container's floor with the pool's processes up and no task run yet."""
    peak_floor_bytes: int
    limit_bytes: int
    child_peak_bytes: tuple[int, ...]
    """For each child that ran tasks, the most that it and all it started held at a time."""
    recycles: tuple[tuple[str, int], ...]
    """How many children left, by reason."""
    oom_kills: int
    cpu_seconds: float
    cores: float
    """CPUs that the container may use."""
    failures: tuple[tuple[str, int], ...] = ()
    """How many tasks ended with an error, by its name."""
    stopped: str = ""
    """Why it was given up early; empty for a window that ran its time."""

    @property
    def done(self) -> int:
        """Tasks that ended in it."""
        return len(self.ran_seconds)

    @property
    def per_second(self) -> float:
        """Tasks that ended well each second; only of a window that ran."""
        return max(0, self.done - self.errors) / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWindow:
    """A window, and the load in it. Its tasks are those that came in it, whenever they ended."""

    load: str
    """As it was asked for."""
    offered_per_second: float
    backlog_middle: int
    """Tasks that had come and not ended, half way through."""
    backlog_end: int
    unfinished: int
    """Of those, how many had not ended a minute later either: their times are not among the window's."""
    window: Window

    @property
    def keeps_up(self) -> bool:
        """Whether what waits does not grow: beyond the tasks that can be in work, a tenth of what came."""
        came = self.offered_per_second * self.window.seconds
        grown = self.backlog_end - self.backlog_middle
        return grown <= max(2.0 * self.window.level.concurrency, 0.1 * came)


def count_backlog(tasks: Iterable[TaskTimes], at: float) -> int:
    """Return how many tasks had come and not ended at a moment."""
    return sum(task.due <= at and (task.ended is None or task.ended > at) for task in tasks)


WARM_UP_SECONDS = 2.0
FEWEST_TASKS = 10


@dataclass(frozen=True, slots=True)
class Span:
    """A window's begin and end, in seconds of CLOCK_BOOTTIME; at each a task has ended."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Goal:
    """What a window must have, and the longest that it may take for that."""

    level: Level
    least_seconds: float
    most_seconds: float

    @property
    def least_tasks(self) -> int:
        """So many that each child can be recycled once."""
        return max(FEWEST_TASKS, self.level.concurrency * self.level.max_tasks_per_child)


@dataclass(frozen=True, slots=True)
class Going:
    """It goes on; how many tasks of the window have ended."""

    done: int


@dataclass(frozen=True, slots=True)
class Enough:
    """The window is whole."""

    span: Span


@dataclass(frozen=True, slots=True)
class Stopped:
    """The level is given up."""

    reason: str


def warm_end(marks: Marks, concurrency: int) -> int | None:
    """Return how many tasks ended in the warm-up: one for each child, and those of the first seconds.

    A multiple of the concurrency: tasks that take equally long end together, and a window has either all of
    them or none. None while the warm-up lasts.
    """
    first = min((task.began for task in marks.tasks.values() if task.began is not None), default=None)
    if first is None:
        return None
    times = [at for at, _ in marks.ends]
    if not times or times[-1] < first + WARM_UP_SECONDS:
        return None
    early = bisect_right(times, first + WARM_UP_SECONDS)
    count = max(1, -(-early // concurrency)) * concurrency
    return count if count <= len(times) else None


def judge(marks: Marks, looks: list[Look], goal: Goal, began: float, at: float) -> Going | Enough | Stopped:
    """Tell how far a level is that began to get tasks at `began`."""
    why = why_it_does_not_fit(looks)
    if why:
        return Stopped(why)
    concurrency = goal.level.concurrency
    warm = warm_end(marks, concurrency)
    if warm is None:
        late = at - began > goal.most_seconds
        return Stopped(f"{len(marks.ends)} tasks ended in {at - began:.0f} s") if late else Going(0)
    begin = marks.ends[warm - 1][0]
    rounds = (len(marks.ends) - warm) // concurrency
    end = marks.ends[warm + rounds * concurrency - 1][0]
    span = Span(begin, end)
    enough = span.seconds >= goal.least_seconds and rounds * concurrency >= goal.least_tasks
    # A child that has done its tasks is gone only a moment later.
    if rounds and ((enough and recycles_between(looks, span)) or at - begin > goal.most_seconds):
        return Enough(span)
    if at - begin > goal.most_seconds:
        return Stopped(f"{len(marks.ends) - warm} tasks ended in {at - begin:.0f} s")
    return Going(rounds * concurrency)


def spread_at(readings: Sequence[tuple[float, float]], at: float) -> float:
    """Return a growing figure at a moment between two readings."""
    place = bisect_left(readings, (at,))
    if place == 0:
        return readings[0][1]
    if place == len(readings):
        return readings[-1][1]
    (before, low), (after, high) = readings[place - 1], readings[place]
    return low + (high - low) * (at - before) / (after - before)


def recycles_between(looks: Sequence[Look], span: Span) -> tuple[tuple[str, int], ...]:
    """Return how many children left between two moments, by reason."""
    before: Mapping[str, int] = next((look.recycles for look in reversed(looks) if look.at <= span.begin), {})
    after: Mapping[str, int] = next(
        (look.recycles for look in looks if look.at >= span.end), looks[-1].recycles
    )
    changes = {reason: count - before.get(reason, 0) for reason, count in after.items()}
    return tuple(sorted((reason, count) for reason, count in changes.items() if count > 0))


def describe_window(
    *,
    goal: Goal,
    repeat: int,
    span: Span,
    marks: Marks,
    looks: Sequence[Look],
    cpu: Sequence[tuple[float, float]],
    cores: float,
    base: Look,
    child_peaks: tuple[int, ...],
    stopped: str = "",
) -> Window:
    """Return what was measured between two moments."""
    ended = marks.ended_between(span.begin, span.end)
    return Window(
        level=goal.level,
        repeat=repeat,
        seconds=span.seconds,
        waited_seconds=tuple(waited(task) for task in ended),
        ran_seconds=tuple(ran(task) for task in ended),
        errors=sum(task.failed for task in ended),
        failures=tuple(Counter(task.error for task in ended if task.failed).most_common()),
        base_floor_bytes=base.floor_bytes,
        peak_floor_bytes=max((look.floor_bytes for look in looks), default=base.floor_bytes),
        limit_bytes=base.limit_bytes,
        child_peak_bytes=child_peaks,
        recycles=recycles_between([base, *looks], span),
        oom_kills=max((look.oom_kills for look in looks), default=base.oom_kills) - base.oom_kills,
        cpu_seconds=spread_at(cpu, span.end) - spread_at(cpu, span.begin),
        cores=cores,
        stopped=stopped,
    )


def waited(task: TaskTimes) -> float:
    """Return how long a task waited from when it was to come."""
    return max(0.0, (task.began if task.began is not None else task.due) - task.due)


def ran(task: TaskTimes) -> float:
    """Return how long a task took from when it first began."""
    assert task.ended is not None  # noqa: S101  # only those that ended are in a window
    return max(0.0, task.ended - (task.began if task.began is not None else task.ended))


def describe_skipped(goal: Goal, repeat: int, base: Window | None, why: str) -> Window:
    """Return a window for a level that was not tried."""
    return Window(
        level=goal.level,
        repeat=repeat,
        seconds=0.0,
        waited_seconds=(),
        ran_seconds=(),
        errors=0,
        base_floor_bytes=base.base_floor_bytes if base else 0,
        peak_floor_bytes=0,
        limit_bytes=base.limit_bytes if base else 0,
        child_peak_bytes=(),
        recycles=(),
        oom_kills=0,
        cpu_seconds=0.0,
        cores=base.cores if base else 0.0,
        stopped=why,
    )
