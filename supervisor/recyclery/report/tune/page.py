"""The answer as one HTML file that needs nothing else: the table, and charts of the levels that were run."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from recyclery.common.units import format_bytes
from recyclery.http.standalone import fill_in
from recyclery.report.tune.figures import seconds, with_interval
from recyclery.report.tune.table import LEGEND, tell_fleet
from recyclery.tune.answer import Answer
from recyclery.tune.estimates import Estimate
from recyclery.tune.judge import Judged

NUMBERS = ("K", "N", "tasks per second", "p50", "p95", "p99", "peak", "a child", "CPU", "failed", "recycled")


def write_page(path: Path, answer: Answer) -> None:
    """Write the page; raises OSError."""
    path.write_text(build_page(answer), encoding="utf-8")


def build_page(answer: Answer) -> str:
    """Return the page's HTML."""
    template = resources.files("recyclery.report.tune").joinpath("page.html").read_text(encoding="utf-8")
    values = {
        "title": f"Concurrency for the pool {html.escape(answer.wishes.pool)}",
        "reason": html.escape(answer.reason),
        "settings": settings_of(answer),
        "table": "\n".join(table_of(answer)),
        "legend": html.escape(LEGEND),
        "said": "\n".join(f"<p class=faint>{html.escape(sentence)}" for sentence in sentences_of(answer)),
    }
    return fill_in(template, values, msgspec.json.encode(draw(answer)))


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
    yield from (sentence for sentence in (tell_fleet(answer.fleet), *answer.doubts) if sentence)


def table_of(answer: Answer) -> Iterable[str]:
    """Yield the levels' table."""
    numbers = "".join(f"<th class=number>{name}" for name in NUMBERS)
    yield f"<table><thead><tr>{numbers}<th>binds<th></thead><tbody>"
    yield from (row_of(judged, answer) for judged in answer.levels)
    yield "</tbody></table>"


def row_of(judged: Judged, answer: Answer) -> str:
    """Return a level's row."""
    measured = judged.measured
    chosen = answer.recommended is not None and answer.recommended.measured is measured
    ran = measured.ran
    level = (str(measured.level.concurrency), str(measured.level.max_tasks_per_child))
    if not measured.was_tried:
        return row("refused", (*level, *("–",) * 9), "", judged.obstacle)
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
    kind = "chosen" if chosen else "refused" if judged.obstacle else "measured"
    return row(kind, (*level, *figures), judged.binds, "recommended" if chosen else judged.obstacle)


def row(kind: str, figures: Iterable[str], binds: str, note: str) -> str:
    """Return one row; on a narrow screen each column's name is put before its figure."""
    # The widest figure has a line of its own there.
    cells = [
        f'<td class="number{" moment" if name == "tasks per second" else ""}" data-name="{name}">{text}'
        for name, text in zip(NUMBERS, figures, strict=True)
    ]
    cells += [f"<td data-name=binds>{binds}", f"<td class=wide>{html.escape(note)}"]
    return f"<tr class={kind}>{''.join(cells)}"


def draw(answer: Answer) -> dict[str, Any]:
    """Return what the page's script draws: series of numbers, no styles."""
    chosen = answer.recommended.measured.level if answer.recommended else None
    return {
        "limit": answer.limit_bytes,
        "levels": [
            {
                "k": judged.measured.level.concurrency,
                "n": judged.measured.level.max_tasks_per_child,
                "chosen": judged.measured.level == chosen,
                "may": not judged.obstacle,
                "speed": bounds(judged.measured.per_second),
                "p95": bounds(judged.measured.ran.p95) if judged.measured.ran else None,
                "peak": judged.measured.highest_floor_bytes,
                "mean": bounds(judged.measured.peak_floor_bytes),
            }
            for judged in answer.levels
            if judged.measured.was_tried
        ],
    }


def bounds(estimate: Estimate | None, unit: float = 1.0) -> list[float | None] | None:
    """Return a figure, its low and its high bound; null for one that is boundless."""
    if estimate is None:
        return None
    figures = (estimate.value, estimate.low, estimate.high)
    return [round(figure / unit, 4) if math.isfinite(figure) else None for figure in figures]
