"""The report for a terminal: 80 columns, and readable without colour."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import datetime

from recyclery.leaks.document import LeakReport, PoolReport, TaskReport
from recyclery.leaks.growth import is_leak

WIDTH = 80
NAME_WIDTH = 24
MIB = 1 << 20
HEAD = (
    f"{'task':{NAME_WIDTH}} {'runs':>5} {'MiB per run':>14} {'share':>5} "
    f"{'where':8} {'shape':9} {'N':>3} {'lost':>5}"
)
LEGEND = (
    "MiB per run: what one run leaves in a child, ± the 95 % interval. share: of all growth in the pool. "
    "N: how many such tasks a child has room for (max-tasks-per-child). "
    "lost: children retired or preempted for it + OOM kills."
)
WHERE = {"python": "Python", "browser": "Chrome", "shared": "shm", "other": "others", "files": "shm file"}


def format_report(report: LeakReport) -> str:
    """Return the page."""
    if not report.pools:
        return "No task has ended yet that was seen: there is nothing to tell."
    lines = [report.history, f"{moment(report.since)} to {moment(report.until)}"]
    for pool in report.pools:
        lines += ["", *format_pool(pool)]
    return "\n".join([*lines, "", *textwrap.wrap(LEGEND, WIDTH)])


def format_pool(pool: PoolReport) -> list[str]:
    """Return one pool's table, with a sentence for each task that wants one."""
    lines = [f"{pool.pool}: {pool.runs} runs{number_note(pool)}", "", HEAD]
    lines += [format_task(task) for task in pool.tasks]
    worth = [
        task for task in pool.tasks if task.shape not in {"none", "plateau"} or "browser running" in task.note
    ]
    for task in worth:
        lines += ["", *textwrap.wrap(f"{task.task}: {task.note}.", WIDTH, subsequent_indent="  ")]
        lines.append(facts_of(task))
    return lines


def number_note(pool: PoolReport) -> str:
    """Say how many tasks a child may run, and how many would suit."""
    if pool.max_tasks_per_child is None:
        return ""
    suits = pool.suggested_max_tasks_per_child
    beside = f", {suits} would suit this mix" if suits is not None else ""
    return f"; {pool.max_tasks_per_child} tasks per child{beside}"


def facts_of(task: TaskReport) -> str:
    """Say what a task leaves in each place, and since when it is known."""
    places = ", ".join(
        f"{WHERE[name]} {figure(growth.bytes_per_run / MIB)}"
        for name, growth in task.places.items()
        if name in {"python", "browser", "shared"} or growth.bytes_per_run
    )
    return f"  per run {places} MiB; first seen {moment(task.first_seen)}"


def format_task(task: TaskReport) -> str:
    """Return one line of the table."""
    number = task.suggested_max_tasks_per_child
    where = WHERE[task.place] if is_leak(task.shape) or task.shape == "undecided" else "-"
    return (
        f"{shorten(task.task):{NAME_WIDTH}} {short_count(task.runs):>5} {growth_text(task):>14} "
        f"{task.share_of_growth:5.0%} {where:8} {task.shape:9} {number if number is not None else '-':>3} "
        f"{f'{task.recycles}+{task.oom_kills}':>5}"
    )


def growth_text(task: TaskReport) -> str:
    """Say what a run leaves, and how sure that is."""
    mean = task.bytes_per_run / MIB
    if task.high_bytes is None:
        return f"{figure(mean)} ± ?"
    away = task.high_bytes / MIB - mean
    return f"{figure(mean)} ± {figure(away)}"


def figure(mib: float) -> str:
    """Return a size with as many digits as it needs, and no minus before a nought."""
    mib = 0.0 if abs(mib) < 0.005 else mib
    return f"{mib:.0f}" if abs(mib) >= 100 else f"{mib:.1f}" if abs(mib) >= 9.95 else f"{mib:.2f}"


def short_count(count: int) -> str:
    """Return a number in five columns."""
    if count < 100_000:
        return str(count)
    return f"{count / 1000:.0f}k" if count < 10_000_000 else f"{count / 1_000_000:.0f}M"


def shorten(name: str) -> str:
    """Return a task's name cut at its front: what tells tasks apart is at the end."""
    return name if len(name) <= NAME_WIDTH else f"…{name[1 - NAME_WIDTH :]}"


def moment(at: float) -> str:
    """Return a time in the local zone."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M")


def format_comparison(before: LeakReport, after: LeakReport, at: tuple[str, str]) -> str:
    """Return a table of both stretches of time, task by task, with what surely changed."""
    rows = pair_up(before, after)
    lines = [
        f"A: {at[0]}; B: {at[1]}",
        "",
        f"{'pool':8} {'task':{NAME_WIDTH}} {'MiB per run, A':>15} {'MiB per run, B':>15}  change",
    ]
    for one, other in rows:
        task = one or other
        assert task is not None  # noqa: S101  # one of a pair is there
        lines.append(
            f"{task.pool[:8]:8} {shorten(task.task):{NAME_WIDTH}} {growth_text(one) if one else '-':>15} "
            f"{growth_text(other) if other else '-':>15}  {change(one, other)}"
        )
    return "\n".join(lines)


def pair_up(before: LeakReport, after: LeakReport) -> list[tuple[TaskReport | None, TaskReport | None]]:
    """Return each task's rows of both reports, those whose growth changed most first."""
    ones = {(task.pool, task.task): task for task in before.tasks}
    others = {(task.pool, task.task): task for task in after.tasks}
    pairs = [(ones.get(key), others.get(key)) for key in ones.keys() | others.keys()]
    return sorted(pairs, key=lambda pair: -abs(left_by(pair[1]) - left_by(pair[0])) if all(pair) else 0.0)


def left_by(task: TaskReport | None) -> float:
    """Return what a run leaves; nothing where there is none."""
    return task.bytes_per_run if task is not None else 0.0


def change(one: TaskReport | None, other: TaskReport | None) -> str:
    """Say whether growth surely changed."""
    if one is None:
        return "new"
    if other is None:
        return "gone"
    spans: Sequence[float | None] = (one.low_bytes, one.high_bytes, other.low_bytes, other.high_bytes)
    if None in spans:
        return "too few"
    difference = (other.bytes_per_run - one.bytes_per_run) / MIB
    away = sum(((task.high_bytes or 0) - task.bytes_per_run) ** 2 for task in (one, other)) ** 0.5 / MIB
    return f"{difference:+.1f}" if abs(difference) > away else "not sure"
