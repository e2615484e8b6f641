"""The leak report for a terminal: 80 columns, readable without colour."""

import math
import textwrap
from collections.abc import Sequence
from datetime import datetime

from recyclery.common.units import MIB
from recyclery.leaks.growth import is_leak
from recyclery.leaks.report import LeakReport, PoolReport, TaskReport

PAGE_WIDTH = 80
TASK_WIDTH = 24
LEAKS_HEADER = (
    f"{'task':{TASK_WIDTH}} {'runs':>5} {'MiB per run':>14} {'share':>5} "
    f"{'where':8} {'shape':9} {'N':>3} {'lost':>5}"
)
LEAKS_LEGEND = (
    "MiB per run: what one run leaves in a child, ± the 95 % interval. share: of all growth in the pool. "
    "N: how many such tasks a child has room for (max-tasks-per-child). "
    "lost: children retired or preempted for it + OOM kills."
)
WHERE = {"python": "Python", "browser": "Chrome", "shared": "shm", "other": "others", "files": "shm file"}


def format_leaks(report: LeakReport) -> str:
    """Return the whole report."""
    if not report.pools:
        return "No measured task has ended yet: there is nothing to report."
    lines = [report.history, f"{format_time(report.since)} to {format_time(report.until)}"]
    for pool in report.pools:
        lines += ["", *format_leaks_pool(pool)]
    return "\n".join([*lines, "", *textwrap.wrap(LEAKS_LEGEND, PAGE_WIDTH)])


def format_leaks_pool(pool: PoolReport) -> list[str]:
    """Return one pool's table, and advice for each task that needs some."""
    title = f"{pool.pool}: {pool.runs} runs"
    if pool.max_tasks_per_child is not None:
        title += f"; {pool.max_tasks_per_child} tasks per child"
        if pool.suggested_max_tasks_per_child is not None:
            title += f", {pool.suggested_max_tasks_per_child} would suit this mix"
    lines = [title, "", LEAKS_HEADER, *map(format_leaks_row, pool.tasks)]
    for task in pool.tasks:
        if task.shape in {"none", "plateau"} and "browser running" not in task.note:
            continue
        places = ", ".join(
            f"{WHERE[name]} {format_small_mib(growth.bytes_per_run)}"
            for name, growth in task.places.items()
            if name in {"python", "browser", "shared"} or growth.bytes_per_run
        )
        lines += [
            "",
            *textwrap.wrap(f"{task.task}: {task.note}.", PAGE_WIDTH, subsequent_indent="  "),
            f"  per run {places} MiB; first seen {format_time(task.first_seen)}",
        ]
    return lines


def format_leaks_row(task: TaskReport) -> str:
    """Return a task's line of the table."""
    suggested = "-" if task.suggested_max_tasks_per_child is None else task.suggested_max_tasks_per_child
    where = WHERE[task.place] if is_leak(task.shape) or task.shape == "undecided" else "-"
    return (
        f"{shorten(task.task):{TASK_WIDTH}} {short_count(task.runs):>5} {format_growth(task):>14} "
        f"{task.share_of_growth:5.0%} {where:8} {task.shape:9} {suggested:>3} "
        f"{f'{task.recycles}+{task.oom_kills}':>5}"
    )


def format_growth(task: TaskReport | None) -> str:
    """Return what a run leaves, in MiB, with its 95 % interval."""
    if task is None:
        return "-"
    margin = "?" if task.high_bytes is None else format_small_mib(task.high_bytes - task.bytes_per_run)
    return f"{format_small_mib(task.bytes_per_run)} ± {margin}"


def format_small_mib(size_bytes: float) -> str:
    """Return a size with as many digits as it needs, and never -0."""
    mib = size_bytes / MIB
    mib = 0.0 if abs(mib) < 0.005 else mib
    return f"{mib:.0f}" if abs(mib) >= 100 else f"{mib:.1f}" if abs(mib) >= 9.95 else f"{mib:.2f}"


def short_count(count: int) -> str:
    """Return a number in five columns."""
    if count < 100_000:
        return str(count)
    return f"{count / 1000:.0f}k" if count < 10_000_000 else f"{count / 1_000_000:.0f}M"


def shorten(name: str) -> str:
    """Return a task's name cut at its front: tasks differ at the end of their names."""
    return name if len(name) <= TASK_WIDTH else f"…{name[1 - TASK_WIDTH :]}"


def format_time(at: float) -> str:
    """Return a time in the local zone."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")


def format_leaks_comparison(before: LeakReport, after: LeakReport, titles: Sequence[str]) -> str:
    """Return a table of both reports, task by task, the largest changes first."""
    olds = {(task.pool, task.task): task for task in before.tasks}
    news = {(task.pool, task.task): task for task in after.tasks}

    def change_bytes(key: tuple[str, str]) -> float:
        return news[key].bytes_per_run - olds[key].bytes_per_run if key in olds and key in news else 0.0

    lines = [
        f"A: {titles[0]}; B: {titles[1]}",
        "",
        f"{'pool':8} {'task':{TASK_WIDTH}} {'MiB per run, A':>15} {'MiB per run, B':>15}  change",
    ]
    for key in sorted(olds.keys() | news.keys(), key=lambda key: (-abs(change_bytes(key)), key)):
        old, new = olds.get(key), news.get(key)
        lines.append(
            f"{key[0][:8]:8} {shorten(key[1]):{TASK_WIDTH}} {format_growth(old):>15} {format_growth(new):>15}  "
            f"{describe_change(old, new)}"
        )
    return "\n".join(lines)


def describe_change(old: TaskReport | None, new: TaskReport | None) -> str:
    """Return the change in MiB per run if it is certain, else why there is none."""
    if old is None or new is None:
        return "new" if old is None else "gone"
    if old.high_bytes is None or new.high_bytes is None:
        return "too few"
    change = new.bytes_per_run - old.bytes_per_run
    margin = math.hypot(old.high_bytes - old.bytes_per_run, new.high_bytes - new.bytes_per_run)
    return f"{change / MIB:+.1f}" if abs(change) > margin else "not sure"
