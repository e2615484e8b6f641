"""The answer in words: why this level, in two sentences, and what the run cannot say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from recyclery.decide.queueing import MOST_BUSY, Fleet
from recyclery.tune.choose import near_best
from recyclery.tune.evaluate import Judged
from recyclery.tune.levels import Measured
from recyclery.tune.wishes import Wishes

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
