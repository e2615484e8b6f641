"""One window of measurement: what it holds, and when it begins and ends. Pure.

In a closed loop tasks always wait, which shows the capacity; in an open loop they come at their own times.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from recyclery.common.units import format_mib
from recyclery.tune.spec import Level, Spec

WARM_UP_SECONDS = 2.0
FEWEST_TASKS = 10
# Ends after which the same task comes again.
RETRIED = frozenset({"RETRY", "REJECTED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One measured window at one level, without its warm-up."""

    level: Level
    repeat: int
    seconds: float = 0.0
    waited_seconds: tuple[float, ...] = ()
    """Of the tasks that ended in it, in the order they ended: from when each was due until it began."""
    ran_seconds: tuple[float, ...] = ()
    """Of the same tasks: from when each began until it ended."""
    errors: int = 0
    failures: tuple[tuple[str, int], ...] = ()
    """How many tasks failed, by the name of the error."""
    base_floor_bytes: int = 0
    """The container's unreclaimable memory with the pool's processes up and no task run yet."""
    peak_floor_bytes: int = 0
    limit_bytes: int = 0
    child_peak_bytes: tuple[int, ...] = ()
    """For each child that ran tasks, the most that its process tree held."""
    recycles: tuple[tuple[str, int], ...] = ()
    """How many children left, by reason."""
    oom_kills: int = 0
    cpu_seconds: float = 0.0
    cores: float = 0.0
    """CPUs that the container may use."""
    stopped: str = ""
    """Why it was aborted; empty for a window that ran its time."""

    @property
    def done(self) -> int:
        """Tasks that ended in it."""
        return len(self.ran_seconds)

    @property
    def succeeded(self) -> int:
        """Tasks that ended in it without an error."""
        return max(0, self.done - self.errors)

    @property
    def per_second(self) -> float:
        """Tasks that succeeded each second; only of a window that ran."""
        return self.succeeded / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoopWindow:
    """A window under a load. Its tasks are those that were due in it, whenever they ended."""

    load: str
    """As it was asked for."""
    offered_per_second: float
    backlog_middle: int
    """Tasks that were due and had not ended, half way through."""
    backlog_end: int
    unfinished: int
    """Tasks that had not ended a minute later either: their times are not among the window's."""
    window: Window

    @property
    def keeps_up(self) -> bool:
        """Whether the backlog does not grow, beyond the tasks that can run and a tenth of what was offered."""
        offered = self.offered_per_second * self.window.seconds
        grown = self.backlog_end - self.backlog_middle
        return grown <= max(2.0 * self.window.level.concurrency, 0.1 * offered)


class WindowSpan(NamedTuple):
    """A window's begin and end, in seconds of CLOCK_BOOTTIME; at each a task has ended."""

    begin: float
    end: float


class WindowState(NamedTuple):
    """A window under way: it is over once it is complete and has a span, or is aborted for a reason."""

    done: int = 0
    """How many of its tasks have ended."""
    span: WindowSpan | None = None
    aborted: str = ""


@dataclass(frozen=True, slots=True)
class StatusSample:
    """The container and the pool at one moment."""

    at: float
    floor_bytes: int
    """Unreclaimable memory, without what the tuning itself holds."""
    hard_bytes: int
    limit_bytes: int
    oom_kills: int
    is_serving: bool
    """Whether the worker takes tasks, with all its children up."""
    recycles: Mapping[str, int]


@dataclass(slots=True)
class TaskTimes:
    """One task, its times in seconds of CLOCK_BOOTTIME; None for what has not happened."""

    due: float
    began: float | None = None
    """When it first began: a task that died, or is retried, has been running since then."""
    ended: float | None = None
    failed: bool = False
    error: str = ""

    @property
    def waited_seconds(self) -> float:
        """How long it waited from when it was due."""
        return max(0.0, (self.due if self.began is None else self.began) - self.due)

    @property
    def ran_seconds(self) -> float:
        """How long it took from when it first began; 0 while it has not ended."""
        return 0.0 if self.began is None or self.ended is None else max(0.0, self.ended - self.began)


@dataclass
class TaskEvents:
    """The tasks of a level by number."""

    tasks: dict[int, TaskTimes] = field(default_factory=dict)
    ends: list[tuple[float, int]] = field(default_factory=list)
    """When tasks ended, and their numbers, in the order of their ends."""

    def update(self, lines: Iterable[str]) -> None:
        """Add further lines of a file of events."""
        for line in lines:
            kind, number_word, at_word, *rest = line.split()
            number, at = int(number_word), float(at_word)
            task = self.tasks.get(number)
            if kind == "due":
                self.tasks[number] = TaskTimes(at)
            elif task is None:
                # Sent for a level before this one.
                continue
            elif kind == "began" and task.began is None:
                task.began = at
            elif kind == "ended" and rest[0] not in RETRIED and task.ended is None:
                task.ended, task.failed, task.error = at, rest[0] == "FAILURE", "".join(rest[1:])
                self.ends.append((at, number))
        # Children write independently of each other.
        self.ends.sort()

    def count_errors(self) -> Counter[str]:
        """Return how many tasks failed, by the name of their error."""
        return Counter(task.error for task in self.tasks.values() if task.failed)

    def ended_between(self, after: float, until: float) -> list[TaskTimes]:
        """Return the tasks that ended after one moment, and not after another, in that order."""
        return [self.tasks[number] for at, number in self.ends if after < at <= until]

    def count_backlog(self, at: float) -> int:
        """Return how many tasks were due and had not ended at a moment."""
        tasks = self.tasks.values()
        return sum(task.due <= at and (task.ended is None or task.ended > at) for task in tasks)


@dataclass
class Observation:
    """What has been seen so far of a level at work."""

    level: Level
    base: StatusSample
    """With the pool's processes up and no task run yet."""
    cores: float
    """CPUs that the container may use."""
    events: TaskEvents = field(default_factory=TaskEvents)
    samples: list[StatusSample] = field(default_factory=list)
    cpu: list[tuple[float, float]] = field(default_factory=list)
    """Moments, and the CPU seconds used until then."""

    def state(self, spec: Spec, began: float, at: float) -> WindowState:
        """Return the state at a moment of a window whose tasks were sent from `began` on."""
        if why := why_it_does_not_fit([self.base, *self.samples]):
            return WindowState(aborted=why)
        ends, concurrency = self.events.ends, self.level.concurrency
        warm_up = count_warm_up(self.events, concurrency)
        if warm_up is None:
            late = at - began > spec.most_seconds
            return WindowState(aborted=f"{len(ends)} tasks ended in {at - began:.0f} s" if late else "")
        begin = ends[warm_up - 1][0]
        # Whole batches of tasks that may end together.
        done = (len(ends) - warm_up) // concurrency * concurrency
        span = WindowSpan(begin, ends[warm_up + done - 1][0])
        late = at - begin > spec.most_seconds
        enough = span.end - span.begin >= spec.least_seconds and done >= least_tasks(self.level)
        # A child that has run its tasks is gone only a moment later.
        if done and (late or (enough and self._count_recycles(span))):
            return WindowState(done, span)
        return WindowState(
            done, aborted=f"{len(ends) - warm_up} tasks ended in {at - begin:.0f} s" if late else ""
        )

    def window(self, repeat: int, span: WindowSpan, child_peaks: tuple[int, ...], stopped: str = "") -> Window:
        """Return what was measured between two moments."""
        ended = self.events.ended_between(span.begin, span.end)
        samples = [self.base, *self.samples]
        return Window(
            level=self.level,
            repeat=repeat,
            seconds=span.end - span.begin,
            waited_seconds=tuple(task.waited_seconds for task in ended),
            ran_seconds=tuple(task.ran_seconds for task in ended),
            errors=sum(task.failed for task in ended),
            failures=tuple(Counter(task.error for task in ended if task.failed).most_common()),
            base_floor_bytes=self.base.floor_bytes,
            peak_floor_bytes=max(each.floor_bytes for each in self.samples or samples),
            limit_bytes=self.base.limit_bytes,
            child_peak_bytes=child_peaks,
            recycles=self._count_recycles(span),
            oom_kills=max(each.oom_kills for each in samples) - self.base.oom_kills,
            cpu_seconds=interpolate(self.cpu, span.end) - interpolate(self.cpu, span.begin),
            cores=self.cores,
            stopped=stopped,
        )

    def _count_recycles(self, span: WindowSpan) -> tuple[tuple[str, int], ...]:
        """Return how many children left between two moments, by reason."""
        samples = [self.base, *self.samples]
        before = next((each.recycles for each in reversed(samples) if each.at <= span.begin), {})
        after = next((each for each in samples if each.at >= span.end), samples[-1]).recycles
        changes = {reason: count - before.get(reason, 0) for reason, count in after.items()}
        return tuple(sorted((reason, count) for reason, count in changes.items() if count > 0))


def why_it_does_not_fit(samples: list[StatusSample]) -> str:
    """Return what shows that a level needs too much memory; empty as long as nothing does."""
    first, last = samples[0], samples[-1]
    if last.oom_kills > first.oom_kills:
        return f"the kernel killed {last.oom_kills - first.oom_kills} processes: out of memory"
    if last.recycles.get("preempt", 0) > first.recycles.get("preempt", 0):
        return (
            "a child had to be killed before the kernel chose one: "
            f"unreclaimable memory passed {format_mib(last.hard_bytes)}"
        )
    if len(samples) > 1 and all(each.floor_bytes > each.hard_bytes for each in samples[-2:]):
        held, hard = format_mib(last.floor_bytes), format_mib(last.hard_bytes)
        return f"unreclaimable memory is {held}, past the hard level of {hard}"
    return ""


def least_tasks(level: Level) -> int:
    """Return the tasks that a window needs: enough for each child to be recycled once."""
    return max(FEWEST_TASKS, level.concurrency * level.max_tasks_per_child)


def count_warm_up(events: TaskEvents, concurrency: int) -> int | None:
    """Return how many tasks ended in the warm-up: one for each child, and those of the first seconds.

    It is a multiple of the concurrency: tasks that take equally long end together, and a window has either all
    of them or none. None while the warm-up lasts.
    """
    first = min((task.began for task in events.tasks.values() if task.began is not None), default=None)
    times = [at for at, _ in events.ends]
    if first is None or not times or times[-1] < first + WARM_UP_SECONDS:
        return None
    early = bisect_right(times, first + WARM_UP_SECONDS)
    count = max(1, -(-early // concurrency)) * concurrency
    return count if count <= len(times) else None


def interpolate(readings: Sequence[tuple[float, float]], at: float) -> float:
    """Return a growing figure at a moment between two readings."""
    index = bisect_left(readings, (at,))
    if index in {0, len(readings)}:
        return readings[max(0, index - 1)][1]
    (before, low), (after, high) = readings[index - 1], readings[index]
    return low + (high - low) * (at - before) / (after - before)


def skip_window(level: Level, repeat: int, like: Window, why: str) -> Window:
    """Return the window of a level that is not tried; `like` is another one of the run."""
    known = {name: getattr(like, name) for name in ("base_floor_bytes", "limit_bytes", "cores")}
    return Window(level=level, repeat=repeat, stopped=why, **known)
