"""From what was measured to what to set: the level, why, what it was told from, and what is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from recyclery.decide.memory_model import PoolModel
from recyclery.tune.choose import choose_level
from recyclery.tune.fitting import Refused
from recyclery.tune.judge import Judged, judge_levels
from recyclery.tune.measured import Measured, measure_levels, whole_windows
from recyclery.tune.memory import Peaks, choose_limit, choose_tasks, fit_peaks
from recyclery.tune.predict import Prediction, find_next, predict_levels
from recyclery.tune.queueing import Container, Fleet, plan_fleet
from recyclery.tune.reason import give_reason, list_doubts
from recyclery.tune.snippets import write_conf, write_environment
from recyclery.tune.throughput import Throughput, fit_throughput
from recyclery.tune.windows import Level, Window
from recyclery.tune.wishes import Wishes

__all__ = ["Answer", "Recommended", "Wishes", "answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommended:
    """What to set."""

    level: Level
    """As measured, but for tasks per child where children have no room for so many."""
    measured: Measured
    memory_limit_bytes: int
    conf: str
    environment: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """All that the run told. `recommended` is None where no level may be chosen; `reason` says why."""

    wishes: Wishes
    limit_bytes: int
    levels: tuple[Judged, ...]
    recommended: Recommended | None
    reason: str
    next_level: Prediction | None
    """One that was not run, and promises more than all that were."""
    fleet: Fleet | None
    throughput: Throughput | Refused
    peaks: Peaks | Refused
    predictions: tuple[Prediction, ...]
    doubts: tuple[str, ...]
    """What the run cannot say, each in a sentence."""


def answer(windows: Sequence[Window], wishes: Wishes, learned: PoolModel | None = None) -> Answer:
    """Return the answer; `learned` is the supervisor's model of the pool after the run, where there is one."""
    limit = wishes.memory_bytes or min((window.limit_bytes for window in windows), default=0)
    levels = judge_levels(measure_levels(windows), wishes, limit)
    chosen = choose_level([judged.measured for judged in levels if not judged.obstacle], wishes)
    recommended = recommend(chosen, windows, wishes, limit, learned) if chosen else None
    throughput, peaks = fit_throughput(windows), fit_peaks(windows)
    predictions = predict_levels(
        [judged.measured for judged in levels], chosen.level if chosen else None, throughput, peaks, limit
    )
    fleet = arrange(chosen, windows, wishes) if chosen else None
    following = find_next(predictions, chosen.per_second) if chosen and chosen.per_second else None
    return Answer(
        wishes=wishes,
        limit_bytes=limit,
        levels=levels,
        recommended=recommended,
        reason=give_reason(levels, chosen, wishes),
        next_level=following,
        fleet=fleet,
        throughput=throughput,
        peaks=peaks,
        predictions=predictions,
        doubts=tuple(list_doubts(levels, chosen, wishes, (throughput, peaks), fleet)),
    )


def recommend(
    chosen: Measured, windows: Sequence[Window], wishes: Wishes, limit: int, learned: PoolModel | None
) -> Recommended:
    """Return what to set for the chosen level."""
    level = chosen.level
    if learned is not None:
        base = max(window.base_floor_bytes for window in windows if window.level == level)
        level = replace(level, max_tasks_per_child=choose_tasks(chosen, base, limit, learned))
    needed = choose_limit(chosen, limit)
    return Recommended(
        level=level,
        measured=chosen,
        memory_limit_bytes=needed,
        conf=write_conf(wishes.pool, level, needed),
        environment=write_environment(level, needed),
    )


def arrange(chosen: Measured, windows: Sequence[Window], wishes: Wishes) -> Fleet | None:
    """Return how many containers the arrivals need, where a rate was told."""
    if not wishes.arrivals_per_second or chosen.per_second is None:
        return None
    at_level = [window for window in whole_windows(windows) if window.level == chosen.level]
    ran = [seconds for window in at_level for seconds in window.ran_seconds]
    container = Container(chosen.level.concurrency, chosen.per_second.low, ran, chosen.variation)
    return plan_fleet(wishes.arrivals_per_second, container, wishes)
