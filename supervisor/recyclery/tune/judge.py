"""Each level with what holds it back, and why it cannot be chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recyclery.common.units import format_bytes
from recyclery.config.settings import Alerts
from recyclery.tune.binding import Binding, find_binding
from recyclery.tune.measured import Measured
from recyclery.tune.memory import LEVELS, fits, highest_bytes
from recyclery.tune.wishes import Wishes

SUCCESS_PERCENT = Alerts().success_percent


@dataclass(frozen=True, slots=True)
class Judged:
    """A level, what holds it back, and why it cannot be chosen (empty where it can)."""

    measured: Measured
    binds: Binding
    obstacle: str


def judge_levels(measured: Sequence[Measured], wishes: Wishes, limit_bytes: int) -> tuple[Judged, ...]:
    """Return the levels, judged."""
    least = next((one for one in measured if one.per_second is not None), None)
    return tuple(
        Judged(one, find_binding(one, least or one, limit_bytes), find_obstacle(one, wishes, limit_bytes))
        for one in measured
    )


def find_obstacle(measured: Measured, wishes: Wishes, limit_bytes: int) -> str:
    """Say why a level cannot be chosen; empty where it can."""
    if measured.oom_kills:
        return f"the kernel killed {measured.oom_kills} processes for want of memory"
    if measured.stopped:
        return f"given up: {measured.stopped}"
    if preempted := measured.recycles.get("preempt", 0):
        return f"{preempted} children were killed to make room"
    if not fits(highest_bytes(measured), limit_bytes):
        return (
            f"memory may reach {format_bytes(int(highest_bytes(measured)))}, "
            f"past {LEVELS.high_percent} % of {format_bytes(limit_bytes)}"
        )
    if not measured.is_enough or measured.ran is None:
        return f"{measured.done} tasks are too few to tell"
    if measured.failing_share > 1 - SUCCESS_PERCENT / 100:
        return f"{measured.failing_share:.0%} of the tasks failed{name_worst(measured)}"
    if wishes.slo_seconds is not None and measured.ran.p95.value > wishes.slo_seconds:
        return f"p95 is {measured.ran.p95.value:.3g} s, over {wishes.slo_seconds:g} s"
    return ""


def name_worst(measured: Measured) -> str:
    """Return the end of a sentence that says with what most tasks failed, where that is known."""
    named = next((name for name in measured.failures if name), "")
    return f", most of them with {named}" if named else ""
