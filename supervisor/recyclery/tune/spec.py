"""What a tuning measures, what the recommended level has to meet, and the loads that it is tried with."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, count, takewhile
from pathlib import Path
from typing import Literal

import msgspec

RATE = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?:/(?P<unit>s|min|h)|(?P<share>%))")
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True, order=True)
class Level:
    """A pair of settings to try."""

    concurrency: int
    max_tasks_per_child: int

    def __str__(self) -> str:
        return f"{self.concurrency} x {self.max_tasks_per_child}"


ObjectiveMetric = Literal["throughput", "latency"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What the recommended level has to meet; None where nothing was asked for."""

    pool: str = "slow"
    metric: ObjectiveMetric = "throughput"
    slo_seconds: float | None = None
    """95 % of the tasks have to be done within this time."""
    memory_bytes: int | None = None
    """The container's memory limit, where it differs from the one during the run."""
    arrivals_per_second: float | None = None
    """The rate of arrivals that containers are counted for."""


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that measuring depends on: the head of a run file, so that a run can be resumed."""

    app: str
    config: str | None
    """The configuration file that was named."""
    pool: str
    task: str
    args: str | None
    generate: str | None
    concurrencies: tuple[int, ...]
    """In ascending order."""
    asked_for: bool
    """Whether --concurrency was given: then each level is tried, even if the one before it did no more."""
    max_tasks: tuple[int, ...]
    repeats: int
    """Rounds at least: each has a window of each level."""
    most_repeats: int
    """Rounds at most, while levels near the best one cannot be told apart."""
    seed: int
    least_seconds: float
    most_seconds: float
    memory_bytes: int | None
    loads: tuple[str, ...] = ()
    """Arrival rates to try at the recommended level: `2/s`, or a share of its capacity, `85%`."""
    trace: str | None = None
    began: str = ""

    @property
    def levels(self) -> tuple[Level, ...]:
        """All levels, the lowest first."""
        return tuple(sorted(Level(each, most) for each in self.concurrencies for most in self.max_tasks))


class TuningFailed(Exception):
    """The tuning cannot go on; the message says why."""


def parse_rate(text: str, capacity_per_second: float) -> float:
    """Return tasks per second for `2/s`, `30/min`, or a share of the capacity, `85%`. Raises ValueError."""
    found = RATE.fullmatch(text)
    if found is None or not float(found["number"]):
        raise ValueError(f"{text!r} is no rate")
    if found["share"]:
        return float(found["number"]) / 100 * capacity_per_second
    return float(found["number"]) / SECONDS[found["unit"]]


def draw_arrivals(per_second: float, seconds: float, seed: int) -> list[float]:
    """Return the times of a Poisson process, in seconds from its start."""
    chance = random.Random(seed)  # noqa: S311  # not a secret
    gaps = iter(lambda: chance.expovariate(per_second), None)
    return list(takewhile(lambda at: at < seconds, accumulate(gaps)))


def read_trace(path: Path) -> tuple[float, ...]:
    """Return the times in a trace, in seconds from any moment; raises TuningFailed."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        times = tuple(sorted(float(line) for line in lines if line.strip() and not line.startswith("#")))
    except (OSError, ValueError) as error:
        raise TuningFailed(f"--trace {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(times) < 2:
        raise TuningFailed(f"--trace {path} has {len(times)} arrivals: `recyclery trace record` for longer")
    return times


def stretch_trace(trace: Sequence[float], per_second: float, seconds: float) -> list[float]:
    """Return the times of a trace at another rate, repeated until `seconds` have passed."""
    length = trace[-1] - trace[0]
    # The gap between the last arrival and the first of the next pass is an average one.
    length += length / max(1, len(trace) - 1)
    scale = len(trace) / length / per_second if length else 1 / per_second
    times = (((length or 1.0) * turn + each - trace[0]) * scale for turn in count() for each in trace)
    return list(takewhile(lambda at: at < seconds, times))
