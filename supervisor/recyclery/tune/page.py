"""The recommendation as one HTML file that needs nothing else: the table, and charts of what was run."""

import html
import math
from importlib import resources
from typing import Any

import msgspec

from recyclery.http.standalone import fill_in
from recyclery.tune.evaluate import LevelResult
from recyclery.tune.output import TABLE_LEGEND, format_figures, sentences_of
from recyclery.tune.recommendation import Recommendation
from recyclery.tune.statistics import Estimate

FIGURES = ("K", "N", "tasks per second", "p50", "p95", "p99", "peak", "a child", "CPU", "failed", "recycled")


def build_tune_page(found: Recommendation) -> str:
    template = resources.files("recyclery.tune").joinpath("page.html").read_text(encoding="utf-8")
    values = {
        "title": f"Concurrency for the pool {html.escape(found.objective.pool)}",
        "reason": html.escape(found.explanation),
        "settings": format_settings(found),
        "table": format_level_table(found),
        "legend": html.escape(TABLE_LEGEND),
        "said": "\n".join(f"<p class=faint>{html.escape(sentence)}" for sentence in sentences_of(found)),
    }
    return fill_in(template, values, msgspec.json.encode(build_chart_data(found)))


def format_settings(found: Recommendation) -> str:
    """Return what to set, as text to copy."""
    if found.settings is None:
        return ""
    variables = "\n".join(f"{name}={value}" for name, value in found.settings.environment.items())
    blocks = {"recyclery.toml": found.settings.conf, "or in the environment": variables}
    figures = (
        f"<figure><figcaption>{name}</figcaption><pre>{html.escape(text)}</pre></figure>"
        for name, text in blocks.items()
    )
    return f"<div class=settings>{''.join(figures)}</div>"


def format_level_table(found: Recommendation) -> str:
    numbers = "".join(f"<th class=number>{name}" for name in FIGURES)
    head = f"<table><thead><tr>{numbers}<th>bottleneck<th></thead><tbody>"
    rows = [format_level_row(result, found) for result in found.levels]
    return "\n".join([head, *rows, "</tbody></table>"])


def format_level_row(result: LevelResult, found: Recommendation) -> str:
    """Return a level's row; on a narrow screen each column's name is put before its figure."""
    chosen = found.settings is not None and found.settings.result is result
    note = "recommended" if chosen else result.rejection
    kind = "chosen" if chosen else "refused" if result.rejection else "measured"
    bottleneck = result.bottleneck if result.was_tried else ""
    figures = format_figures(result)
    # The widest figure has a line of its own there.
    classes = {name: "number moment" if name == "tasks per second" else "number" for name in FIGURES}
    cells = [f'<td class="{classes[name]}" data-name="{name}">{figures[name]}' for name in FIGURES]
    cells += [f"<td data-name=bottleneck>{bottleneck}", f"<td class=wide>{html.escape(note)}"]
    return f"<tr class={kind}>{''.join(cells)}"


def build_chart_data(found: Recommendation) -> dict[str, Any]:
    """Return what the page's script draws: series of numbers, no styles."""
    chosen = found.settings.result.level if found.settings else None
    return {
        "limit": found.limit_bytes,
        "levels": [
            {
                "k": result.level.concurrency,
                "n": result.level.max_tasks_per_child,
                "chosen": result.level == chosen,
                "may": not result.rejection,
                "speed": bounds(result.per_second),
                "p95": bounds(result.ran.p95) if result.ran else None,
                "peak": result.highest_floor_bytes,
                "mean": bounds(result.peak_floor_bytes),
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
