"""The leak report as one self-contained HTML file: the tables, and charts drawn as on the live page."""

import html
import statistics
from collections import defaultdict
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from recyclery.history.reader import HistoryReader, StoredRun, read_stretch
from recyclery.history.records import PLACES, Parts
from recyclery.http.standalone import fill_in
from recyclery.leaks.growth import left_in
from recyclery.leaks.report import JUDGED_RUNS, LeakReport, PoolReport, TaskReport
from recyclery.leaks.table import LEAKS_LEGEND, format_growth, format_small_mib, format_time

# More cannot be distinguished, and makes the file large.
MOST_STEPS = 1200
MOST_ACTIONS = 2000
MOST_CHILDREN = 40
MOST_OUTLIERS = 40
# A value this many box widths beyond the box is drawn as an outlier.
WHISKER = 1.5
SHAPE_CLASSES = {"leak": "bad", "step": "bad", "undecided": "worry", "plateau": "good", "none": "good"}
NUMBER_COLUMNS = ("runs", "MiB per run", "share", "Python", "Chrome", "shm", "N", "lost")


def build_leaks_page(history: HistoryReader, report: LeakReport) -> str:
    """Return the page's HTML."""
    template = resources.files("recyclery.leaks").joinpath("page.html").read_text(encoding="utf-8")
    values = {
        "title": "Memory by task",
        "span": html.escape(f"{format_time(report.since)} to {format_time(report.until)}"),
        "legend": html.escape(LEAKS_LEGEND),
        "tables": "\n".join(map(format_html_table, report.pools)),
    }
    since, until = report.since, report.until + 1
    runs = [run for pool in report.pools for run in history.runs(pool.pool, since, until, JUDGED_RUNS)]
    # Numbers only: the page's script adds the styles.
    data = {
        "timeline": read_stretch(Path(report.history), since, until, MOST_STEPS, MOST_ACTIONS),
        "lives": chart_lives(runs),
        "spread": chart_spread(runs, {(task.pool, task.task) for task in report.tasks}),
    }
    return fill_in(template, values, msgspec.json.encode(data))


def format_html_table(pool: PoolReport) -> str:
    """Return a pool's table."""
    limit = f", {pool.max_tasks_per_child} tasks per child" if pool.max_tasks_per_child else ""
    suggested = pool.suggested_max_tasks_per_child
    suits = f"; {suggested} would suit this mix" if suggested is not None else ""
    heads = ("<th>task<th>shape", *(f"<th class=number>{name}" for name in NUMBER_COLUMNS), "<th>first seen")
    return (
        f"<h2>{html.escape(pool.pool)}</h2><p class=faint>{pool.runs} runs{limit}{suits}</p>"
        f"<table><thead><tr>{''.join(heads)}<th>advice</thead><tbody>"
        f"{''.join(map(format_html_row, pool.tasks))}</tbody></table>"
    )


def format_html_row(task: TaskReport) -> str:
    """Return a task's row. On a narrow screen the styles put each column's name before its cell."""
    left = {name: growth.bytes_per_run for name, growth in task.places.items()}
    suggested = task.suggested_max_tasks_per_child
    numbers = (
        str(task.runs),
        format_growth(task),
        f"{task.share_of_growth:.0%}",
        *map(format_small_mib, (left["python"], left["browser"], left["shared"] + left.get("files", 0))),
        str(suggested) if suggested is not None else "–",
        f"{task.recycles}+{task.oom_kills}",
    )
    cells = [
        ("title", "task", html.escape(task.task)),
        ("fixed", "shape", f"<b class={SHAPE_CLASSES[task.shape]}>{task.shape}</b>"),
        *(("number", name, text) for name, text in zip(NUMBER_COLUMNS, numbers, strict=True)),
        ("moment", "first seen", format_time(task.first_seen)),
        ("wide", "advice", html.escape(task.note)),
    ]
    return "<tr>" + "".join(
        f'<td class={kind} data-name="{name}"><span>{content}</span>' for kind, name, content in cells
    )


def chart_lives(runs: Sequence[StoredRun]) -> list[dict[str, Any]]:
    """Return the idle memory of the newest children after each task, relative to their beginning."""
    lives: dict[tuple[str, int], list[tuple[StoredRun, Parts]]] = defaultdict(list)
    for run in runs:
        if run.after is not None:
            lives[run.pool, run.child].append((run, run.after))
    charted = []
    for (pool, _), life in sorted(lives.items(), key=lambda item: item[1][-1][0].ended)[-MOST_CHILDREN:]:
        first, first_after = life[0]
        begin = (first.before or first_after).total
        chart = {
            "pool": pool,
            "at": [run.place + sum(run.tasks.values()) for run, _ in life],
            "bytes": [after.total - begin for _, after in life],
            "tasks": [", ".join(run.tasks) for run, _ in life],
        }
        charted.append(chart)
    return charted


def chart_spread(runs: Sequence[StoredRun], shown: set[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return a box plot for each task of what single runs left in all places together."""
    left: dict[tuple[str, str], list[int]] = defaultdict(list)
    for run in runs:
        (task, *others) = run.tasks
        if not others and (run.pool, task) in shown and left_in(run, "python") is not None:
            left[run.pool, task].append(sum(left_in(run, place) or 0 for place in PLACES))
    return [{"name": f"{task} ({pool})", **box_plot(values)} for (pool, task), values in sorted(left.items())]


def box_plot(values: Sequence[int]) -> dict[str, Any]:
    """Return the quartiles, the range of the values near them, and the outliers."""
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
        "far": sorted(far, key=lambda value: -abs(value - median))[:MOST_OUTLIERS],
    }
