"""What the supervisor's history of a level tells: how large children grew, and what tasks cost. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from recyclery.decide.memory_model import PoolModel, TaskRun, learn, learn_idle
from recyclery.history.reader import Run


def child_peaks(runs: Iterable[Run]) -> tuple[int, ...]:
    """Return for each child that ran tasks the most that it and all it started held."""
    peaks: dict[int, int] = {}
    for run in runs:
        held = max(parts.total for parts in (run.before, run.peak, run.after) if parts is not None)
        peaks[run.child] = max(peaks.get(run.child, 0), held)
    return tuple(peaks.values())


def learn_runs(model: PoolModel, runs: Iterable[Run]) -> PoolModel:
    """Return the model with these runs in it, as the supervisor would have learned from them."""
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
