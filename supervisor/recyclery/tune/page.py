"""The recommendation as one HTML file that needs nothing else: the table and charts (plotly)."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from recyclery.leaks.page import NoPlotly
from recyclery.tune.levels import LevelResult
from recyclery.tune.output import LEGEND, format_figures, format_fleet
from recyclery.tune.recommendation import Recommendation
from recyclery.tune.statistics import Estimate

MIB = 1 << 20
NUMBERS = ("K", "N", "tasks per second", "p50", "p95", "p99", "peak", "a child", "CPU", "failed", "recycled")


def write_page(path: Path, found: Recommendation) -> None:
    """Write the page; raises NoPlotly, OSError."""
    try:
        # Of an extra, and slow to import.
        from plotly.offline import get_plotlyjs  # noqa: PLC0415
    except ImportError:
        raise NoPlotly("the page needs plotly: pip install 'recyclery[report]'") from None
    path.write_text(build_page(found, get_plotlyjs()), encoding="utf-8")


def build_page(found: Recommendation, script: str) -> str:
    """Return the page's HTML."""
    template = resources.files("recyclery.tune").joinpath("page.html").read_text(encoding="utf-8")
    data = json.dumps(draw(found), separators=(",", ":"))
    fleet = [format_fleet(found.fleet)] if found.fleet is not None else []
    values = {
        "title": f"Concurrency for the pool {html.escape(found.objective.pool)}",
        "reason": html.escape(found.explanation),
        "settings": settings_of(found),
        "table": "\n".join(table_of(found)),
        "legend": html.escape(LEGEND),
        "said": "\n".join(f"<p>{html.escape(sentence)}" for sentence in (*fleet, *found.caveats)),
        "data": data,
        "plotly": script,
    }
    # In one pass: what is put in may hold such words itself.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def settings_of(found: Recommendation) -> str:
    """Return what to set, as text to copy."""
    if found.settings is None:
        return ""
    variables = "\n".join(f"{name}={value}" for name, value in found.settings.environment.items())
    blocks = (("recyclery.toml", found.settings.conf), ("or in the environment", variables))
    return "<div class=settings>{}</div>".format(
        "".join(
            f"<figure><figcaption>{name}</figcaption><pre>{html.escape(text)}</pre></figure>"
            for name, text in blocks
        )
    )


def table_of(found: Recommendation) -> Iterable[str]:
    """Yield the levels' table."""
    numbers = "".join(f"<th class=number>{name}" for name in NUMBERS)
    yield f"<div class=wide><table><thead><tr>{numbers}<th>bottleneck<th></thead><tbody>"
    yield from (level_row(result, found) for result in found.levels)
    yield "</tbody></table></div>"


def level_row(result: LevelResult, found: Recommendation) -> str:
    """Return a level's row."""
    chosen = found.settings is not None and found.settings.result is result
    note = "recommended" if chosen else html.escape(result.rejection)
    kind = "chosen" if chosen else "refused" if result.rejection else "measured"
    figures = format_figures(result)
    cells = "".join(f"<td class=number>{figures[name]}" for name in NUMBERS)
    bottleneck = result.bottleneck if result.was_tried else ""
    return f"<tr class={kind}>{cells}<td>{bottleneck}<td class=note>{note}"


def draw(found: Recommendation) -> dict[str, Any]:
    """Return what the page's script draws: series of numbers, no styles."""
    chosen = found.settings.result.level if found.settings else None
    return {
        "limit": round(found.limit_bytes / MIB),
        "levels": [
            {
                "name": f"{result.level.concurrency} × {result.level.max_tasks_per_child}",
                "k": result.level.concurrency,
                "n": result.level.max_tasks_per_child,
                "chosen": result.level == chosen,
                "may": not result.rejection,
                "speed": bounds(result.per_second),
                "p95": bounds(result.ran.p95) if result.ran else None,
                "peak": round(result.highest_floor_bytes / MIB, 1),
            }
            for result in found.levels
            if result.was_tried
        ],
    }


def bounds(estimate: Estimate | None) -> list[float | None] | None:
    """Return a figure, its low and its high bound; null for one that is boundless."""
    if estimate is None:
        return None
    figures = (estimate.value, estimate.low, estimate.high)
    return [round(figure, 4) if math.isfinite(figure) else None for figure in figures]
