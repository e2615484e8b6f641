"""The answer as one HTML file that needs nothing else: the table, and plots to move about in (plotly)."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from recyclery.common.units import format_bytes
from recyclery.leaks.page import NoPlotly
from recyclery.report.tune.figures import seconds, with_interval
from recyclery.report.tune.table import LEGEND, tell_fleet, tell_law, tell_next, worth_showing
from recyclery.tune.answer import Answer
from recyclery.tune.estimates import Estimate
from recyclery.tune.judge import Judged
from recyclery.tune.predict import Prediction

MIB = 1 << 20
NUMBERS = ("K", "N", "tasks per second", "p50", "p95", "p99", "peak", "a child", "CPU", "failed", "recycled")


def write_page(path: Path, answer: Answer) -> None:
    """Write the page; raises NoPlotly, OSError."""
    try:
        # Of an extra, and slow to import.
        from plotly.offline import get_plotlyjs  # noqa: PLC0415
    except ImportError:
        raise NoPlotly("the page needs plotly: pip install 'recyclery[report]'") from None
    path.write_text(build_page(answer, get_plotlyjs()), encoding="utf-8")


def build_page(answer: Answer, script: str) -> str:
    """Return the page's HTML."""
    template = resources.files("recyclery.report.tune").joinpath("page.html").read_text(encoding="utf-8")
    data = json.dumps(draw(answer), separators=(",", ":"))
    values = {
        "title": f"Concurrency for the pool {html.escape(answer.wishes.pool)}",
        "reason": html.escape(answer.reason),
        "settings": settings_of(answer),
        "table": "\n".join(table_of(answer)),
        "legend": html.escape(LEGEND),
        "said": "\n".join(f"<p>{html.escape(sentence)}" for sentence in sentences_of(answer)),
        "data": data,
        "plotly": script,
    }
    # In one pass: what is put in may hold such words itself.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def settings_of(answer: Answer) -> str:
    """Return what to set, as text to copy."""
    if answer.recommended is None:
        return ""
    variables = "\n".join(f"{name}={value}" for name, value in answer.recommended.environment.items())
    blocks = (("recyclery.toml", answer.recommended.conf), ("or in the environment", variables))
    return "<div class=settings>{}</div>".format(
        "".join(
            f"<figure><figcaption>{name}</figcaption><pre>{html.escape(text)}</pre></figure>"
            for name, text in blocks
        )
    )


def sentences_of(answer: Answer) -> Iterator[str]:
    """Yield what is said below the table."""
    told = (tell_next(answer.next_level), tell_fleet(answer.fleet), tell_law(answer.throughput))
    yield from (sentence for sentence in (*told, *answer.doubts) if sentence)


def table_of(answer: Answer) -> Iterable[str]:
    """Yield the levels' table."""
    numbers = "".join(f"<th class=number>{name}" for name in NUMBERS)
    rows = {judged.measured.level: measured_row(judged, answer) for judged in answer.levels}
    rows |= {one.level: predicted_row(one) for one in worth_showing(answer)}
    yield f"<div class=wide><table><thead><tr>{numbers}<th>binds<th></thead><tbody>"
    yield from (rows[level] for level in sorted(rows))
    yield "</tbody></table></div>"


def measured_row(judged: Judged, answer: Answer) -> str:
    """Return a measured level's row."""
    measured = judged.measured
    chosen = answer.recommended is not None and answer.recommended.measured is measured
    ran = measured.ran
    level = (str(measured.level.concurrency), str(measured.level.max_tasks_per_child))
    if not measured.was_tried:
        return row("refused", (*level, *("–",) * 9), "", html.escape(judged.obstacle))
    times = (seconds(ran.p50), seconds(ran.p95.value), seconds(ran.p99)) if ran else ("–",) * 3
    figures = (
        with_interval(measured.per_second) if measured.per_second else "–",
        *times,
        format_bytes(measured.highest_floor_bytes),
        format_bytes(measured.child_peak_bytes),
        f"{measured.cpu_share:.0%}" if measured.done else "–",
        str(measured.errors),
        str(sum(measured.recycles.values())),
    )
    note = "recommended" if chosen else html.escape(judged.obstacle)
    kind = "chosen" if chosen else "refused" if judged.obstacle else "measured"
    return row(kind, (*level, *figures), judged.binds, note)


def predicted_row(one: Prediction) -> str:
    """Return a predicted level's row."""
    speed = with_interval(one.per_second) if one.per_second else "–"
    peak = format_bytes(round(one.peak_floor_bytes.value)) if one.peak_floor_bytes else "–"
    level = (str(one.level.concurrency), str(one.level.max_tasks_per_child))
    return row("predicted", (*level, speed, "–", "–", "–", peak, *("–",) * 4), "", "predicted, not run")


def row(kind: str, figures: Iterable[str], binds: str, note: str) -> str:
    """Return one row."""
    cells = "".join(f"<td class=number>{figure}" for figure in figures)
    return f"<tr class={kind}>{cells}<td>{binds}<td class=note>{note}"


def draw(answer: Answer) -> dict[str, Any]:
    """Return what the page's script draws: series of numbers, no styles."""
    chosen = answer.recommended.measured.level if answer.recommended else None
    return {
        "limit": round(answer.limit_bytes / MIB),
        "levels": [
            {
                "name": f"{judged.measured.level.concurrency} × {judged.measured.level.max_tasks_per_child}",
                "k": judged.measured.level.concurrency,
                "n": judged.measured.level.max_tasks_per_child,
                "chosen": judged.measured.level == chosen,
                "may": not judged.obstacle,
                "speed": bounds(judged.measured.per_second),
                "p95": bounds(judged.measured.ran.p95) if judged.measured.ran else None,
                "peak": round(judged.measured.highest_floor_bytes / MIB, 1),
            }
            for judged in answer.levels
            if judged.measured.was_tried
        ],
        "curve": [
            {
                "k": one.level.concurrency,
                "run": one.was_run,
                "speed": bounds(one.per_second),
                "peak": bounds(one.peak_floor_bytes, MIB),
            }
            for one in answer.predictions
        ],
    }


def bounds(estimate: Estimate | None, unit: float = 1.0) -> list[float | None] | None:
    """Return a figure, its low and its high bound; null for one that is boundless."""
    if estimate is None:
        return None
    figures = (estimate.value, estimate.low, estimate.high)
    return [round(figure / unit, 4) if math.isfinite(figure) else None for figure in figures]
