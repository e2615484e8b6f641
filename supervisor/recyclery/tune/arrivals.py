"""When tasks come that do not wait for one another: by chance, or as they once did. Pure."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

RATE = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?:/(?P<unit>s|min|h)|(?P<share>%))")
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def read_load(text: str, capacity_per_second: float) -> float:
    """Return how many tasks come each second: `2/s`, `30/min`, or a share of the capacity, `85%`.

    Raises ValueError.
    """
    found = RATE.fullmatch(text)
    if found is None or not float(found["number"]):
        raise ValueError(f"{text!r} is no rate")
    if found["share"]:
        return float(found["number"]) / 100 * capacity_per_second
    return float(found["number"]) / SECONDS[found["unit"]]


def draw_arrivals(per_second: float, seconds: float, seed: int) -> list[float]:
    """Return when tasks come that know nothing of each other (a Poisson process), in seconds from the begin."""
    chance = random.Random(seed)  # noqa: S311  # not a secret
    times: list[float] = []
    at = chance.expovariate(per_second)
    while at < seconds:
        times.append(at)
        at += chance.expovariate(per_second)
    return times


def stretch_trace(trace: Sequence[float], per_second: float, seconds: float) -> list[float]:
    """Return a trace's times at that rate, from its begin again when it is through."""
    length = trace[-1] - trace[0]
    # From the last arrival to the first of the next round it is as far as between two on average.
    length += length / max(1, len(trace) - 1)
    scale = len(trace) / length / per_second if length else 1 / per_second
    times: list[float] = []
    begin = 0.0
    while True:
        for each in trace:
            at = begin + (each - trace[0]) * scale
            if at >= seconds:
                return times
            times.append(at)
        begin += (length or 1.0) * scale
