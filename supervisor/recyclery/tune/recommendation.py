"""What to set by what was measured: the level, why that one, and what the run does not show."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from recyclery.decide.memory_model import PoolModel
from recyclery.decide.queueing import MAX_UTILISATION, ContainerRates, Fleet, plan_fleet
from recyclery.tune.evaluate import (
    LevelResult,
    choose_level,
    choose_memory_limit,
    choose_tasks,
    complete_windows,
    evaluate_levels,
    near_best,
    run_limit_bytes,
)
from recyclery.tune.spec import Level, Objective
from recyclery.tune.window import Window

# A wider interval hides differences that matter.
WIDE_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendedSettings:
    """What to set."""

    level: Level
    """As measured, but with fewer tasks per child where a child has no memory for as many."""
    result: LevelResult
    memory_limit_bytes: int
    conf: str
    """The lines for recyclery.toml; they replace those of the same names."""
    environment: dict[str, str]
    """The same as variables of the worker's service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """Everything that follows from a run."""

    objective: Objective
    limit_bytes: int
    levels: tuple[LevelResult, ...]
    settings: RecommendedSettings | None
    """None where no level may be chosen."""
    explanation: str
    """Two sentences: why this level or none, and what keeps a higher one from doing better."""
    fleet: Fleet | None
    caveats: tuple[str, ...]
    """What the run does not show, each in a sentence."""


def recommend(
    windows: Sequence[Window], objective: Objective, learned: PoolModel | None = None
) -> Recommendation:
    """Return the recommendation; `learned` is the supervisor's memory model of the pool after the run."""
    limit = run_limit_bytes(windows, objective)
    levels = evaluate_levels(windows, objective)
    chosen = choose_level(levels, objective)
    fleet = size_fleet(chosen, windows, objective) if chosen else None
    return Recommendation(
        objective=objective,
        limit_bytes=limit,
        levels=levels,
        settings=make_settings(chosen, windows, objective.pool, limit, learned) if chosen else None,
        explanation=explain(levels, chosen, objective),
        fleet=fleet,
        caveats=tuple(list_caveats(levels, chosen, objective, fleet)) if chosen else (),
    )


def make_settings(
    chosen: LevelResult, windows: Sequence[Window], pool: str, limit: int, learned: PoolModel | None
) -> RecommendedSettings:
    level = chosen.level
    if learned is not None:
        base = max(window.base_floor_bytes for window in windows if window.level == level)
        level = replace(level, max_tasks_per_child=choose_tasks(chosen, base, limit, learned))
    needed = choose_memory_limit(chosen, limit)
    # Whole MiB, or GiB where it is that: settings and container engines read both.
    size = f"{needed >> 20}MiB" if needed % (1 << 30) else f"{needed >> 30}GiB"
    concurrency, tasks = level.concurrency, level.max_tasks_per_child
    return RecommendedSettings(
        level=level,
        result=chosen,
        memory_limit_bytes=needed,
        conf=(
            f'[memory]\nlimit_bytes = "{size}"\n\n'
            f"[pools.{pool}]\nconcurrency = {concurrency}\nmax_tasks_per_child = {tasks}"
        ),
        environment={
            "CELERY_CONCURRENCY": str(concurrency),
            "CELERY_MAX_TASKS_PER_CHILD": str(tasks),
            "RECYCLERY_MEMORY_LIMIT": size,
        },
    )


def size_fleet(chosen: LevelResult, windows: Sequence[Window], objective: Objective) -> Fleet | None:
    """Return how many containers the arrivals need, where a rate was given."""
    if not objective.arrivals_per_second or chosen.per_second is None:
        return None
    at_level = [window for window in complete_windows(windows) if window.level == chosen.level]
    ran = [seconds for window in at_level for seconds in window.ran_seconds]
    container = ContainerRates(chosen.level.concurrency, chosen.per_second.low, ran, chosen.variation)
    return plan_fleet(objective.arrivals_per_second, container, slo_seconds=objective.slo_seconds)


def explain(levels: Sequence[LevelResult], chosen: LevelResult | None, objective: Objective) -> str:
    """Return in two sentences why this level, and why none above it; or why none at all."""
    if not levels:
        return "Nothing was measured. Run at least one level."
    if chosen is None:
        least, why = levels[0].level, levels[0].rejection or "no task succeeded"
        return (
            f"No level can be recommended. At the least one, {least.concurrency} with "
            f"{least.max_tasks_per_child} tasks per child, {why}."
        )
    assert chosen.per_second is not None  # noqa: S101  # a level without is never chosen
    assert chosen.ran is not None  # noqa: S101
    rate = chosen.per_second
    does = f"{rate.value:.3g} tasks a second ({rate.low:.3g} to {rate.high:.3g})"
    near = near_best(result for result in levels if not result.rejection)
    if objective.metric == "latency":
        why = f"does {does}, with a p95 of {chosen.ran.p95.value:.3g} s that no other level surely betters"
    elif any(result.level.concurrency > chosen.level.concurrency for result in near):
        why = f"does {does}, and no level surely does much more"
    else:
        why = f"does the most, {does}"
    return f"Concurrency {chosen.level.concurrency} {why}. {explain_limit(levels, chosen)}"


def explain_limit(levels: Sequence[LevelResult], chosen: LevelResult) -> str:
    """Return what was measured to keep a higher concurrency from doing better."""
    above = [result for result in levels if result.level.concurrency > chosen.level.concurrency]
    # Of the next higher concurrency, the level that is most like the chosen one.
    result = min(
        above,
        key=lambda one: (
            one.level.concurrency,
            abs(one.level.max_tasks_per_child - chosen.level.max_tasks_per_child),
        ),
        default=chosen,
    )
    at = f"At {result.level.concurrency}" if above else "It is the highest level that ran, and there"
    if result.rejection:
        return f"{at}, {result.rejection}."
    if result.bottleneck == "CPU":
        return f"{at} the CPUs are full ({result.cpu_share:.0%}): slots wait for them."
    if result.bottleneck == "memory":
        return f"{at} memory is the bottleneck: {result.memory_recycles} children were retired for it."
    to_spare = f"with CPU ({result.cpu_share:.0%}) and memory to spare"
    if result.bottleneck == "elsewhere":
        return (
            f"{at} each slot does less, {to_spare}: tasks wait for something else, such as a lock or a service."
        )
    if not above:
        return f"{at} nothing was a bottleneck, {to_spare}: higher levels were not tried."
    assert result.per_second is not None  # noqa: S101  # without a rejection it has been measured
    assert result.ran is not None  # noqa: S101
    return f"{at} it is {result.per_second.value:.3g}, with a p95 of {result.ran.p95.value:.3g} s."


def list_caveats(
    levels: Sequence[LevelResult], chosen: LevelResult, objective: Objective, fleet: Fleet | None
) -> Iterator[str]:
    """Yield what the run does not show, and what the recommendation assumes."""
    assert chosen.per_second is not None  # noqa: S101  # a level without is never chosen
    assert chosen.ran is not None  # noqa: S101
    if chosen.repeats == 1:
        yield "The level ran once: how much repeats of it would differ is not known."
    width = chosen.per_second.high / chosen.per_second.value - 1
    if width > WIDE_SHARE:
        yield f"Throughput is known to {width:.0%} only."
    near = near_best(result for result in levels if not result.rejection)
    least = min(near, key=lambda result: result.level, default=chosen)
    if least.level.concurrency < chosen.level.concurrency and least.adjusted_per_second is not None:
        yield (
            f"Concurrency {least.level.concurrency} may do as much: it did "
            f"{least.adjusted_per_second.value:.3g} tasks a second, and more repeats would tell."
        )
    if failures := sum((Counter(result.failures) for result in levels), Counter[str]()):
        named = ", ".join(f"{name} ({count})" for name, count in failures.most_common())
        yield f"Tasks failed: {named}."
    if math.isinf(chosen.ran.p95.high):
        yield f"{chosen.done} tasks bound p95 from below only: it may be higher."
    elif objective.slo_seconds is not None and chosen.ran.p95.high > objective.slo_seconds:
        yield (
            f"p95 may be as high as {chosen.ran.p95.high:.3g} s, over the {objective.slo_seconds:g} s wanted."
        )
    if not chosen.recycles:
        yield "No child was recycled at this level: what that costs is not in its figures."
    yield "The limit is for a container that runs this pool alone, with tasks like those of the run."
    if objective.arrivals_per_second:
        yield explain_fleet(objective, fleet)


def explain_fleet(objective: Objective, fleet: Fleet | None) -> str:
    """Return what the number of containers assumes, or why there is none."""
    if fleet is None:
        return (
            f"No number of containers brings p95 to {objective.slo_seconds:g} s: "
            "tasks take longer than that when they need not wait."
        )
    return (
        "The number of containers holds for arrivals at random into one queue that all of them take from, "
        f"tasks independent of each other, and at most {MAX_UTILISATION:.0%} of their slots busy."
    )
