"""The report as one HTML file that needs nothing else: the table, and plots to move about in (plotly)."""

from __future__ import annotations

import html
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from recyclery.history.reader import Course, History, Run
from recyclery.leaks.document import LeakReport, TaskReport
from recyclery.leaks.growth import left_in
from recyclery.leaks.report import JUDGED_RUNS
from recyclery.leaks.table import LEGEND, figure, growth_text, moment

MIB = 1 << 20
# More points than this cannot be seen apart, and make the file large.
MOST_POINTS = 4000
MOST_CHILDREN = 40
MOST_VALUES = 1500
MARKS = {
    "retire": "retired",
    "preempt": "preempted",
    "replace": "worker replaced",
    "oom": "OOM kill",
    "tune": "limit tuned",
    "scale": "scaled",
    "hold": "held",
}
NUMBERS = ("runs", "MiB per run", "share", "Python", "Chrome", "shm", "N", "lost", "first seen")


class NoPlotly(Exception):
    """plotly is not installed; the message says how to get it."""


def write_page(path: Path, history: History, report: LeakReport) -> None:
    """Write the page; raises NoPlotly, OSError."""
    try:
        # Of an extra, and slow to import.
        from plotly.offline import get_plotlyjs  # noqa: PLC0415
    except ImportError:
        raise NoPlotly("the page needs plotly: pip install 'recyclery[report]'") from None
    path.write_text(build_page(history, report, get_plotlyjs()), encoding="utf-8")


def build_page(history: History, report: LeakReport, script: str) -> str:
    """Return the page's HTML."""
    template = resources.files("recyclery.leaks").joinpath("page.html").read_text(encoding="utf-8")
    data = json.dumps(draw(history, report), separators=(",", ":")).replace("<", "\\u003c")
    values = {
        "title": "Memory by task",
        "span": html.escape(f"{moment(report.since)} to {moment(report.until)}"),
        "legend": html.escape(LEGEND),
        "tables": "\n".join(table_of(report)),
        "data": data,
        "plotly": script,
    }
    # In one pass: what is put in may hold such words itself.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)


def table_of(report: LeakReport) -> Iterable[str]:
    """Yield each pool's table."""
    numbers = "".join(f"<th class=number>{name}" for name in NUMBERS)
    for pool in report.pools:
        number = f", {pool.max_tasks_per_child} tasks per child" if pool.max_tasks_per_child else ""
        suits = pool.suggested_max_tasks_per_child
        fits = f"; {suits} would suit this mix" if suits is not None else ""
        yield f"<h2>{html.escape(pool.pool)}</h2><p>{pool.runs} runs{number}{fits}</p>"
        yield (
            f"<div class=wide><table><thead><tr><th>task<th>shape{numbers}<th>what to make of it</thead><tbody>"
        )
        yield from map(row_of, pool.tasks)
        yield "</tbody></table></div>"


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
        moment(task.first_seen),
    )
    cells = [
        f"<td class=name>{html.escape(task.task)}",
        f'<td data-name="shape"><b class={task.shape}>{task.shape}</b>',
        # On a narrow screen a row is a block, and each figure has its column's name before it.
        *(f'<td class=number data-name="{name}">{text}' for name, text in zip(NUMBERS, figures, strict=True)),
        f"<td class=note>{html.escape(task.note)}",
    ]
    return f"<tr>{''.join(cells)}"


def draw(history: History, report: LeakReport) -> dict[str, Any]:
    """Return what the page's script draws: series of numbers, no styles."""
    since, until = report.since, report.until + 1
    courses = [history.floor(since, until)]
    courses += [history.tree(pool.pool, since, until) for pool in report.pools]
    shown = {(task.pool, task.task) for task in report.tasks}
    runs = [run for pool in report.pools for run in history.runs(pool.pool, since, until, JUDGED_RUNS)]
    return {
        "limit": round(history.limit(since, until) / MIB),
        "courses": [draw_course(course) for course in courses if course.at],
        "marks": draw_marks(history, since, until),
        "lives": draw_lives(runs),
        "spread": draw_spread(runs, shown),
    }


def draw_course(course: Course) -> dict[str, Any]:
    """Return a figure over time: of each stretch that cannot be seen apart, its highest."""
    step = max(1, -(-len(course.at) // MOST_POINTS))
    picked = [
        max(range(begin, min(begin + step, len(course.at))), key=lambda place: course.size_bytes[place])
        for begin in range(0, len(course.at), step)
    ]
    name = "container, not reclaimable" if course.name == "floor" else f"pool {course.name}"
    return {
        "name": name,
        "at": [round(course.at[place] * 1000) for place in picked],
        "mib": [round(course.size_bytes[place] / MIB, 1) for place in picked],
    }


def draw_marks(history: History, since: float, until: float) -> list[dict[str, Any]]:
    """Return each kind of action with its moments and lines."""
    kinds: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for action in history.actions(since, until):
        name = MARKS.get(action.kind) or ("reaped" if action.kind.startswith("reap") else None)
        if name is not None:
            kinds[name].append((round(action.at * 1000), html.escape(action.line[:160])))
    return [
        {"name": name, "at": [at for at, _ in found], "lines": [line for _, line in found]}
        for name, found in kinds.items()
    ]


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
                    "place": [run.place + sum(run.tasks.values()) for run in life],
                    "mib": [
                        round((run.after.total - begun.total) / MIB, 2) for run in life if run.after is not None
                    ],
                    "task": [", ".join(map(html.escape, run.tasks)) for run in life],
                }
            )
    return drawn


def draw_spread(runs: Sequence[Run], shown: set[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return what single runs of each task left, in all places together."""
    left: Mapping[tuple[str, str], list[float]] = defaultdict(list)
    for run in runs:
        (task, *others) = run.tasks
        places = [left_in(run, place) for place in ("python", "shared", "browser", "other")]
        if not others and (run.pool, task) in shown and places[0] is not None:
            left[run.pool, task].append(round(sum(filter(None, places)) / MIB, 3))
    return [
        {"name": f"{task} ({pool})", "mib": values[-MOST_VALUES:]}
        for (pool, task), values in sorted(left.items())
    ]
