"""What is read of a level at work: the supervisor's status, the tasks' start and end, the history."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import psutil

from recyclery.common.units import format_mib
from recyclery.control.client import ask_governor
from recyclery.control.status_schema import Status
from recyclery.decide.memory_model import PoolModel, TaskRun, learn, learn_idle
from recyclery.history.reader import StoredRun
from recyclery.observe.processes import read_kib, read_proc_file
from recyclery_worker.link import now

# The observer's name for a limit that no kernel enforces: only the supervisor's own processes count then.
STATED = "a stated budget"
RETRIED = frozenset({"RETRY", "REJECTED"})
"""Ends after which the same task comes again."""


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


def sample_status(runtime_dir: Path, pool: str, own_pids: Iterable[int]) -> StatusSample:
    """Ask the governor for its status; raises NoSupervisor or Declined."""
    status = msgspec.convert(ask_governor(runtime_dir, "glance"), Status)
    container, worker = status.container, status.pools[pool]
    own_bytes = 0 if container.source == STATED else sum(map(private_bytes, own_pids))
    return StatusSample(
        at=now(),
        floor_bytes=max(0, container.floor_bytes - own_bytes),
        hard_bytes=container.hard_bytes,
        limit_bytes=container.limit_bytes,
        oom_kills=container.oom_kills,
        is_serving=worker.node is not None and len(worker.children) >= worker.concurrency,
        recycles=dict(worker.recycles),
    )


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


def private_bytes(pid: int) -> int:
    """Return a process's anonymous and shared memory; 0 when it is gone."""
    status = read_proc_file(f"/proc/{pid}/status")
    return (read_kib(status, b"\nRssAnon:") + read_kib(status, b"\nRssShmem:")) * 1024


def tree_cpu_seconds(root: int) -> float:
    """Return the CPU time of a process, of all below it, and of those of them that were reaped.

    A process's time is added to its parent's when that reaps it (proc(5), cutime), so none is lost.
    """
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(root)
        for process in (top, *top.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total


@dataclass(frozen=True, slots=True)
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
        ended = len(self.ends)
        for line in lines:
            kind, number_word, at_word, *rest = line.split()
            number, at = int(number_word), float(at_word)
            if kind == "due":
                self.tasks[number] = TaskTimes(at)
            elif number not in self.tasks:
                # Sent for a level before this one.
                continue
            elif kind == "began" and self.tasks[number].began is None:
                self.tasks[number] = replace(self.tasks[number], began=at)
            elif kind == "ended" and rest[0] not in RETRIED and self.tasks[number].ended is None:
                failed, error = rest[0] == "FAILURE", rest[1] if len(rest) > 1 else ""
                self.tasks[number] = replace(self.tasks[number], ended=at, failed=failed, error=error)
                self.ends.append((at, number))
        if len(self.ends) > ended:
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


def child_peaks(runs: Iterable[StoredRun]) -> tuple[int, ...]:
    """Return for each child that ran tasks the most that its process tree held."""
    peaks: dict[int, int] = {}
    for run in runs:
        held = max(parts.total for parts in (run.before, run.peak, run.after) if parts is not None)
        peaks[run.child] = max(peaks.get(run.child, 0), held)
    return tuple(peaks.values())


def learn_from_history(model: PoolModel, runs: Iterable[StoredRun]) -> PoolModel:
    """Return the memory model updated with these runs, as the supervisor would have learned from them."""
    for run in sorted(runs, key=lambda each: each.ended):
        if run.before is None or run.after is None or sum(run.tasks.values()) != 1:
            continue
        (name,) = run.tasks
        model = learn_idle(model, min(run.before.total, run.after.total))
        model = learn(
            model,
            TaskRun(
                pool=run.pool,
                task_name=name,
                tasks_before=run.place,
                before_bytes=run.before.total,
                peak_bytes=run.peak.total,
                after_bytes=run.after.total,
            ),
        )
    return model
