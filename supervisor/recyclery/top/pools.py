"""The rows on the pools: how each is, and its children with their tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from recyclery.control.status_schema import ChildStatus, PoolStatus
from recyclery.sizes import format_bytes
from recyclery.top.rows import Rank, Row
from recyclery.top.text import Line, Span, Style, clean, cut_middle, format_age, line, pad
from recyclery.top.troubles import RISING

# What a child's row takes beside its task, which gets the rest of the width.
TAKEN = 48
LEAST_TASK = 12
LONGEST_NAME = 16


class Columns(NamedTuple):
    """The values of a child's row, from left to right: the first matter most."""

    pid: str
    task: str
    ran: str
    memory: str
    browser: str
    done: str
    age: str


HEADER = Columns("PID", "TASK", "FOR", "MEMORY", "BROWSER", "DONE", "AGE")


def draw_pools(pools: Mapping[str, PoolStatus], chosen: str | None, width: int) -> Iterator[Row]:
    """Yield the rows of all pools."""
    if any(pool.children for pool in pools.values()):
        yield Row(Rank.CHILD, line(place(HEADER, width), Style.FAINT))
    name_width = min(max(map(len, pools), default=0), LONGEST_NAME)
    state_width = max((len(tell_state(pool)) for pool in pools.values()), default=0)
    for name, pool in pools.items():
        is_chosen = name == chosen
        mark = "> " if is_chosen else "  "
        title = pad(cut_middle(clean(name), name_width), name_width)
        yield Row(
            Rank.CHOSEN if is_chosen else Rank.POOL,
            (
                Span(f"{mark}{title}", Style.CHOSEN if is_chosen else Style.STRONG),
                Span(f"  {tell_state(pool):{state_width}}  ", judge_state(pool)),
                *draw_work(pool),
            ),
        )
        yield from draw_handoff(pool)
        for child in sorted(pool.children, key=sort_key):
            yield Row(rank_child(child, is_chosen=is_chosen), draw_child(child, width))
        yield Row(Rank.DETAIL, line(f"  {tell_recycles(pool)}", Style.FAINT))


def tell_state(pool: PoolStatus) -> str:
    """Return a pool's state, in capitals where it takes no tasks: colour may not be had."""
    if pool.state != "running":
        return pool.state.upper()
    return "ON HOLD" if pool.holding else "running"


def judge_state(pool: PoolStatus) -> Style:
    """Return how bad a pool's state is."""
    if pool.state == "running":
        return Style.WORRY if pool.holding else Style.GOOD
    return Style.WORRY if pool.state in RISING else Style.BAD


def draw_work(pool: PoolStatus) -> Line:
    """Return the rest of a pool's row: what it does and what waits."""
    busy = sum(child.task is not None for child in pool.children)
    depth = "?" if pool.queue_depth is None else pool.queue_depth
    waits = bool(pool.queue_depth) and busy < pool.concurrency
    return (
        Span(f"{busy:>3} of {pool.concurrency} busy  "),
        Span(f"{depth:>5} waiting", Style.STRONG if waits else Style.PLAIN),
        Span(f"  {clean(','.join(pool.queues))}"),
    )


def draw_handoff(pool: PoolStatus) -> Iterator[Row]:
    """Yield a row for each worker beside the one that serves the pool."""
    if pool.successor is not None:
        told = f"{pool.successor.slot} starts to take over from {pool.slot}"
        yield Row(Rank.CHOSEN_CHILD, line(f"  {told}", Style.WORRY))
    for former in pool.draining:
        tasks = clean(", ".join(former.tasks)) or "no task any more"
        yield Row(Rank.CHOSEN_CHILD, line(f"  {former.slot} drains: {tasks}", Style.WORRY))


def sort_key(child: ChildStatus) -> tuple[bool, float, int]:
    """Return what sorts the child first whose task has run longest, and the idle ones last."""
    return child.task is None, -(child.task_seconds or 0), child.pid


def rank_child(child: ChildStatus, *, is_chosen: bool) -> Rank:
    """Return what a child's row is worth."""
    if child.task is None:
        return Rank.DETAIL
    return Rank.CHOSEN_CHILD if is_chosen else Rank.CHILD


def draw_child(child: ChildStatus, width: int) -> Line:
    """Return a child's row."""
    row = Columns(
        pid=str(child.pid),
        task=clean(child.task) if child.task is not None else "idle",
        ran=format_age(child.task_seconds) if child.task_seconds is not None else "",
        memory=format_bytes(child.tree_bytes),
        browser=format_bytes(child.tree_browser_bytes) if child.tree_browser_bytes else "-",
        done=str(child.tasks_done),
        age=format_age(child.age_seconds),
    )
    return line(place(row, width), Style.FAINT if child.task is None else Style.PLAIN)


def place(row: Columns, width: int) -> str:
    """Return a row with each value in its column; in a narrow window the last are out of it."""
    task_width = max(LEAST_TASK, width - TAKEN)
    return (
        f"{row.pid:>9} {pad(cut_middle(row.task, task_width), task_width)} {row.ran:>6} {row.memory:>8} "
        f"{row.browser:>8} {row.done:>5} {row.age:>6}"
    )


def tell_recycles(pool: PoolStatus) -> str:
    """Say how often children were replaced, and why."""
    reasons = sorted(pool.recycles.items(), key=lambda item: -item[1])
    told = ", ".join(f"{count} {reason}" for reason, count in reasons) or "none"
    return f"{pool.max_tasks_per_child} tasks per child; recycles: {told}"
