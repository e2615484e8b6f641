"""From what was measured to what to set: the level, why, what it was told from, and what is not known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from recyclery.decide.memory_model import PoolModel
from recyclery.decide.queueing import MOST_BUSY, Container, Fleet, plan_fleet
from recyclery.tune.evaluate import Judged, choose_level, choose_limit, choose_tasks, judge_levels, near_best
from recyclery.tune.levels import Measured, measure_levels, whole_windows
from recyclery.tune.spec import Level, Wishes
from recyclery.tune.window import Window

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
    fleet: Fleet | None
    doubts: tuple[str, ...]
    """What the run cannot say, each in a sentence."""


def answer(windows: Sequence[Window], wishes: Wishes, learned: PoolModel | None = None) -> Answer:
    """Return the answer; `learned` is the supervisor's model of the pool after the run, where there is one."""
    limit = wishes.memory_bytes or min((window.limit_bytes for window in windows), default=0)
    levels = judge_levels(measure_levels(windows), wishes, limit)
    chosen = choose_level([judged.measured for judged in levels if not judged.obstacle], wishes)
    recommended = recommend(chosen, windows, wishes, limit, learned) if chosen else None
    fleet = arrange(chosen, windows, wishes) if chosen else None
    return Answer(
        wishes=wishes,
        limit_bytes=limit,
        levels=levels,
        recommended=recommended,
        reason=give_reason(levels, chosen, wishes),
        fleet=fleet,
        doubts=tuple(list_doubts(levels, chosen, wishes, fleet)),
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
    return plan_fleet(wishes.arrivals_per_second, container, slo_seconds=wishes.slo_seconds)


def write_conf(pool: str, level: Level, limit_bytes: int) -> str:
    """Return the lines for recyclery.toml; they replace those of the same names."""
    return "\n".join(
        [
            "[memory]",
            f'limit_bytes = "{format_limit(limit_bytes)}"',
            "",
            f"[pools.{pool}]",
            f"concurrency = {level.concurrency}",
            f"max_tasks_per_child = {level.max_tasks_per_child}",
        ]
    )


def write_environment(level: Level, limit_bytes: int) -> dict[str, str]:
    """Return the variables of the worker's service."""
    return {
        "CELERY_CONCURRENCY": str(level.concurrency),
        "CELERY_MAX_TASKS_PER_CHILD": str(level.max_tasks_per_child),
        "RECYCLERY_MEMORY_LIMIT": format_limit(limit_bytes),
    }


def format_limit(limit_bytes: int) -> str:
    """Return a limit as settings and container engines read it: whole MiB, or GiB where it is that."""
    if limit_bytes % (1 << 30) == 0:
        return f"{limit_bytes >> 30}GiB"
    return f"{limit_bytes >> 20}MiB"


# Noise beyond this hides differences that matter.
NOISY_SHARE = 0.1


def give_reason(levels: Sequence[Judged], chosen: Measured | None, wishes: Wishes) -> str:
    """Say in two sentences why this level, and why none above it; or why none at all."""
    if not levels:
        return "Nothing was measured. Run at least one level."
    if chosen is None:
        first = levels[0]
        why = first.obstacle or "no task ended well"
        return f"No level can be recommended. At the least one, {name(first.measured)}, {why}."
    return f"{praise(levels, chosen, wishes)} {tell_limit(levels, chosen)}"


def praise(levels: Sequence[Judged], chosen: Measured, wishes: Wishes) -> str:
    """Say what the level does."""
    assert chosen.per_second is not None  # noqa: S101  # a level without is never chosen
    assert chosen.ran is not None  # noqa: S101
    speed = chosen.per_second
    does = f"{speed.value:.3g} tasks a second ({speed.low:.3g} to {speed.high:.3g})"
    if wishes.objective == "latency":
        return (
            f"Concurrency {chosen.level.concurrency} does {does}, with a p95 of {chosen.ran.p95.value:.3g} s "
            "that no other level surely betters."
        )
    near = near_best([judged.measured for judged in levels if not judged.obstacle])
    if any(one.level.concurrency > chosen.level.concurrency for one in near):
        return f"Concurrency {chosen.level.concurrency} does {does}, and no level surely does much more."
    return f"Concurrency {chosen.level.concurrency} does the most, {does}."


def tell_limit(levels: Sequence[Judged], chosen: Measured) -> str:
    """Say what keeps a higher concurrency from doing better."""
    above = find_above(levels, chosen)
    if above is None:
        return tell_highest(next(one for one in levels if one.measured is chosen))
    places, measured = above.measured.level.concurrency, above.measured
    if above.obstacle:
        return f"At {places}, {above.obstacle}."
    match above.binds:
        case "CPU":
            return f"At {places} the CPUs are full ({measured.cpu_share:.0%}): places wait for them."
        case "memory":
            return f"At {places} memory binds: {measured.memory_recycles} children were let go for it."
        case "elsewhere":
            return (
                f"At {places} places wait for each other with CPU ({measured.cpu_share:.0%}) and memory "
                "to spare: for a lock, a service, or a limit that someone else sets."
            )
        case _:
            assert measured.per_second is not None  # noqa: S101  # without obstacle it has been measured
            assert measured.ran is not None  # noqa: S101
            speed, p95 = measured.per_second.value, measured.ran.p95.value
            return f"At {places} it is {speed:.3g}, with a p95 of {p95:.3g} s."


def find_above(levels: Sequence[Judged], chosen: Measured) -> Judged | None:
    """Return the level of the next higher concurrency that is most like the chosen one, if there is any."""
    higher = [one for one in levels if one.measured.level.concurrency > chosen.level.concurrency]
    if not higher:
        return None
    places = higher[0].measured.level.concurrency
    wanted = chosen.level.max_tasks_per_child
    return min(
        (one for one in higher if one.measured.level.concurrency == places),
        key=lambda one: abs(one.measured.level.max_tasks_per_child - wanted),
    )


def tell_highest(own: Judged) -> str:
    """Say what binds at the highest level that was run."""
    match own.binds:
        case "CPU":
            return f"It is the highest that was run, and its CPUs are full ({own.measured.cpu_share:.0%})."
        case "memory":
            return "It is the highest that was run, and memory binds."
        case "elsewhere":
            return "It is the highest that was run, and its places wait for something outside the container."
        case _:
            return "It is the highest that was run, and nothing binds yet: more may do more."


def list_doubts(
    levels: Sequence[Judged],
    chosen: Measured | None,
    wishes: Wishes,
    fleet: Fleet | None,
) -> Iterator[str]:
    """Say what the run cannot tell, and what the answer takes for granted."""
    if chosen is None or chosen.per_second is None or chosen.ran is None:
        return
    if chosen.repeats == 1:
        yield "The level ran once: how much repeats of it would differ is not known."
    noise = chosen.per_second.high / chosen.per_second.value - 1
    if noise > NOISY_SHARE:
        yield f"Throughput is known to {noise:.0%} only."
    yield from doubt_choice(levels, chosen)
    yield from tell_failures(levels)
    if math.isinf(chosen.ran.p95.high):
        yield f"{chosen.done} tasks bound p95 from below only: it may be higher."
    elif wishes.slo_seconds is not None and chosen.ran.p95.high > wishes.slo_seconds:
        yield f"p95 may be as high as {chosen.ran.p95.high:.3g} s, over the {wishes.slo_seconds:g} s wanted."
    if not chosen.recycles:
        yield "No child was recycled at this level: what that costs is not in its figures."
    yield "The limit is for a container that runs this pool alone, with tasks like those of the run."
    if wishes.arrivals_per_second:
        yield from doubt_fleet(wishes, fleet)


def doubt_choice(levels: Sequence[Judged], chosen: Measured) -> Iterator[str]:
    """Say that less may do as much, where that could not be told."""
    near = near_best([judged.measured for judged in levels if not judged.obstacle])
    least = min(near, key=lambda one: one.level, default=chosen)
    if least.level.concurrency < chosen.level.concurrency and least.pace is not None:
        yield (
            f"Concurrency {least.level.concurrency} may do as much: it did {least.pace.value:.3g} tasks a "
            "second, and more repeats would tell."
        )


def tell_failures(levels: Sequence[Judged]) -> Iterator[str]:
    """Say with what tasks failed, at whatever level."""
    names: Counter[str] = Counter()
    for judged in levels:
        names.update(judged.measured.failures)
    if names:
        yield "Tasks failed: " + ", ".join(f"{name} ({count})" for name, count in names.most_common()) + "."


def doubt_fleet(wishes: Wishes, fleet: Fleet | None) -> Iterator[str]:
    """Say what the number of containers takes for granted, or why there is none."""
    if fleet is None:
        yield (
            f"No number of containers brings p95 to {wishes.slo_seconds:g} s: "
            "tasks take longer than that when they need not wait."
        )
        return
    yield (
        "The containers are reckoned for arrivals at random into one queue that all of them take from, "
        f"tasks independent of each other, and at most {MOST_BUSY:.0%} of their places busy."
    )


def name(measured: Measured) -> str:
    """Return a level as people write it."""
    return f"{measured.level.concurrency} with {measured.level.max_tasks_per_child} tasks per child,"
