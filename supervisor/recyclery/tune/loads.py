"""The level that is recommended, with tasks that come at their own times: at rates, or as a trace has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from recyclery.tune.arrivals import draw_arrivals, read_load, stretch_trace
from recyclery.tune.open_loop import OpenWindow
from recyclery.tune.plan import AROUND_SECONDS
from recyclery.tune.recommendation import answer
from recyclery.tune.run import Run
from recyclery.tune.run_file import Opened
from recyclery.tune.runner import measure_open
from recyclery.tune.wishes import Wishes

# So many tasks tell how long they wait; fewer, where that would take longer than the longest window.
TASKS = 200


class BadTrace(Exception):
    """The file is no trace; the message says why."""


def read_trace(path: Path) -> tuple[float, ...]:
    """Return the times in a trace, in seconds from any moment; raises BadTrace."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        times = tuple(sorted(float(line) for line in lines if line.strip() and not line.startswith("#")))
    except (OSError, ValueError) as error:
        raise BadTrace(f"--trace {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(times) < 2:
        raise BadTrace(f"--trace {path} has {len(times)} arrivals: `recyclery trace record` for longer")
    return times


def measure_loads(
    run: Run, wishes: Wishes, trace: Sequence[float] | None, done: Iterable[OpenWindow]
) -> list[OpenWindow]:
    """Measure each load that was asked for, but for those done; nothing where no level is recommended."""
    opened = list(done)
    recommended = answer(run.windows, wishes).recommended
    if recommended is None or recommended.measured.per_second is None:
        return opened
    level, capacity = recommended.measured.level, recommended.measured.per_second.value
    for load in run.request.loads:
        if any(window.load == load for window in opened):
            continue
        per_second = read_load(load, capacity)
        seconds = min(run.bench.most_seconds, max(run.bench.least_seconds, TASKS / per_second))
        times = (
            stretch_trace(trace, per_second, seconds)
            if trace is not None
            else draw_arrivals(per_second, seconds, run.request.seed)
        )
        closed = len(run.windows)
        total = closed + len(run.request.loads)
        run.progress.begin(closed + len(opened), total, seconds + AROUND_SECONDS, level)
        window = measure_open(run.bench, level, load, times or [0.0], next(run.numbers))
        run.file.add(Opened(window))
        opened.append(window)
    return opened
