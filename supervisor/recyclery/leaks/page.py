"""The report as one HTML file that needs nothing else: the tables, and charts drawn as on the live page."""

from __future__ import annotations

import html
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from recyclery.history.reader import History, Run, read_stretch
from recyclery.http.standalone import fill_in
from recyclery.leaks.document import LeakReport, PoolReport, TaskReport
from recyclery.leaks.growth import left_in
from recyclery.leaks.report import JUDGED_RUNS
from recyclery.leaks.table import LEGEND, figure, growth_text, moment

MIB = 1 << 20
# More than this cannot be seen apart, and makes the file large.
MOST_STEPS = 1200
MOST_ACTIONS = 2000
MOST_CHILDREN = 40
MOST_FAR = 40
# What lies further beyond the box than so many of its widths is drawn by itself.
WHISKER = 1.5
TONES = {"leak": "bad", "step": "bad", "undecided": "worry", "plateau": "good", "none": "good"}
NUMBERS = ("runs", "MiB per run", "share", "Python", "Chrome", "shm", "N", "lost")


def write_page(path: Path, history: History, report: LeakReport) -> None:
    """Write the page; raises OSError."""
    path.write_text(build_page(history, report), encoding="utf-8")


def build_page(history: History, report: LeakReport) -> str:
    """Return the page's HTML."""
    template = resources.files("recyclery.leaks").joinpath("page.html").read_text(encoding="utf-8")
    values = {
        "title": "Memory by task",
        "span": html.escape(f"{moment(report.since)} to {moment(report.until)}"),
        "legend": html.escape(LEGEND),
        "tables": "\n".join(map(table_of, report.pools)),
    }
    return fill_in(template, values, msgspec.json.encode(draw(history, report)))


def table_of(pool: PoolReport) -> str:
    """Return a pool's table."""
    number = f", {pool.max_tasks_per_child} tasks per child" if pool.max_tasks_per_child else ""
    suits = pool.suggested_max_tasks_per_child
    fits = f"; {suits} would suit this mix" if suits is not None else ""
    heads = ("<th>task<th>shape", *(f"<th class=number>{name}" for name in NUMBERS), "<th>first seen")
    return (
        f"<h2>{html.escape(pool.pool)}</h2><p class=faint>{pool.runs} runs{number}{fits}</p>"
        f"<table><thead><tr>{''.join(heads)}<th>what to make of it</thead><tbody>"
        f"{''.join(map(row_of, pool.tasks))}</tbody></table>"
    )


def row_of(task: TaskReport) -> str:
    """Return one row."""
    number = task.suggested_max_tasks_per_child
    shared = task.places["shared"].bytes_per_run
    if "files" in task.places:
        shared += task.places["files"].bytes_per_run
    sizes = (task.places["python"].bytes_per_run, task.places["browser"].bytes_per_run, shared)
    figures = (
        str(task.runs),
        growth_text(task),
        f"{task.share_of_growth:.0%}",
        *(figure(size / MIB) for size in sizes),
        str(number) if number is not None else "–",
        f"{task.recycles}+{task.oom_kills}",
    )
    cells = [
        cell("title", "task", html.escape(task.task)),
        cell("fixed", "shape", f"<b class={TONES[task.shape]}>{task.shape}</b>"),
        *(cell("number", name, text) for name, text in zip(NUMBERS, figures, strict=True)),
        cell("moment", "first seen", moment(task.first_seen)),
        cell("wide", "what to make of it", html.escape(task.note)),
    ]
    return f"<tr>{''.join(cells)}"


def cell(kind: str, name: str, content: str) -> str:
    """Return a cell as the page's styles take it: on a narrow screen its column's name is put before it."""
    return f'<td class={kind} data-name="{name}"><span>{content}</span>'


def draw(history: History, report: LeakReport) -> dict[str, Any]:
    """Return what the page's script draws: series of numbers, no styles."""
    since, until = report.since, report.until + 1
    shown = {(task.pool, task.task) for task in report.tasks}
    runs = [run for pool in report.pools for run in history.runs(pool.pool, since, until, JUDGED_RUNS)]
    return {
        "timeline": read_stretch(Path(report.history), since, until, MOST_STEPS, MOST_ACTIONS),
        "lives": draw_lives(runs),
        "spread": draw_spread(runs, shown),
    }


def draw_lives(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return what each of the newest children held when idle, over its tasks, above where it began."""
    lives: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for run in runs:
        if run.after is not None:
            lives[run.pool, run.child].append(run)
    newest = sorted(lives.items(), key=lambda life: life[1][-1].ended)[-MOST_CHILDREN:]
    drawn = []
    for (pool, _), life in newest:
        begun = life[0].before or life[0].after
        if begun is not None:
            drawn.append(
                {
                    "pool": pool,
                    "at": [run.place + sum(run.tasks.values()) for run in life],
                    "bytes": [run.after.total - begun.total for run in life if run.after is not None],
                    "tasks": [", ".join(run.tasks) for run in life],
                }
            )
    return drawn


def draw_spread(runs: Sequence[Run], shown: set[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return what single runs of each task left, in all places together."""
    left: Mapping[tuple[str, str], list[int]] = defaultdict(list)
    for run in runs:
        (task, *others) = run.tasks
        places = [left_in(run, place) for place in ("python", "shared", "browser", "other")]
        if not others and (run.pool, task) in shown and places[0] is not None:
            left[run.pool, task].append(sum(filter(None, places)))
    return [{"name": f"{task} ({pool})", **draw_box(values)} for (pool, task), values in sorted(left.items())]


def draw_box(values: Sequence[int]) -> dict[str, Any]:
    """Return the quartiles, how far the values reach near them, and those that lie far beyond."""
    values = sorted(values)
    several = values if len(values) > 1 else values * 2
    first, median, third = statistics.quantiles(several, n=4, method="inclusive")
    reach = WHISKER * (third - first)
    near = [value for value in values if first - reach <= value <= third + reach]
    far = [value for value in values if not near[0] <= value <= near[-1]]
    return {
        "runs": len(values),
        "least": values[0],
        "low": near[0],
        "first": first,
        "median": median,
        "third": third,
        "high": near[-1],
        "most": values[-1],
        "far": sorted(far, key=lambda value: -abs(value - median))[:MOST_FAR],
    }
