"""What a pool's tasks cost in memory, learned from the tasks it has run."""

from __future__ import annotations

from dataclasses import dataclass, replace

KEPT_RUNS = 50
# While few runs are known, the largest peak seen is taken for too small by this much.
FEW_RUNS = 20
FEW_RUNS_MARGIN = 1.2


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task's memory: its child's tree before it, the most seen while it ran, and after it. Bytes."""

    pool: str
    task_name: str
    tasks_before: int
    before_bytes: int
    peak_bytes: int
    after_bytes: int


@dataclass(frozen=True, slots=True)
class PoolModel:
    """A pool's children as learned so far.

    `baseline_bytes` is the smallest idle tree seen; `tails` are the newest runs' peaks above where they began.
    """

    baseline_bytes: int | None = None
    tails: tuple[int, ...] = ()

    @property
    def tail_bytes(self) -> int:
        """What the next task may need on top of its child's tree; 0 while nothing is known."""
        if not self.tails:
            return 0
        margin = FEW_RUNS_MARGIN if len(self.tails) < FEW_RUNS else 1.0
        return int(max(self.tails) * margin)


def learn(model: PoolModel, run: TaskRun) -> PoolModel:
    """Return the model with one more run in it."""
    tail = max(run.peak_bytes, run.after_bytes) - run.before_bytes
    return replace(model, tails=(*model.tails, max(0, tail))[-KEPT_RUNS:])


def learn_idle(model: PoolModel, idle_bytes: int) -> PoolModel:
    """Return the model after one look at an idle child's tree."""
    if model.baseline_bytes is not None and model.baseline_bytes <= idle_bytes:
        return model
    return replace(model, baseline_bytes=idle_bytes)
