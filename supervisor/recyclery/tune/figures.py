"""Figures as people read them, in few columns."""

from __future__ import annotations

import math

from recyclery.tune.statistics import Estimate


def short(value: float) -> str:
    """Return a figure with three digits."""
    if not math.isfinite(value):
        return "?"
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def with_interval(estimate: Estimate) -> str:
    """Return a figure and how far off it may be."""
    away = max(estimate.high - estimate.value, estimate.value - estimate.low)
    return f"{short(estimate.value)} ± {short(away)}"


def seconds(value: float) -> str:
    """Return a time in the unit that keeps it readable."""
    return f"{value * 1000:.0f} ms" if value < 0.9995 else f"{short(value)} s"
