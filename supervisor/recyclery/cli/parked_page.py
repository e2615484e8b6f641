"""Parked tasks as a table, as a page each, and as documents."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from recyclery.celery_app.routes import COLUMNS, shorten_end, shorten_front
from recyclery_worker.parking.records import Death, ParkedTask, times

LONGEST_QUEUE = 10
MIB = 1 << 20


def format_list(tasks: Sequence[tuple[ParkedTask, Sequence[Death]]]) -> list[str]:
    """Return a line for each task, none longer than 80 columns."""
    if not tasks:
        return ["nothing is parked"]
    rows = [("task", "parked", "died", "queue", "name")]
    rows += [
        (
            task.task_id,
            time.strftime("%d %b %H:%M", time.gmtime(task.at)),
            str(len(deaths)),
            shorten_end(",".join(task.queues), LONGEST_QUEUE),
            task.name,
        )
        for task, deaths in tasks
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    room = max(8, COLUMNS - sum(widths) - 2 * len(widths))
    return [
        "  ".join(
            [
                *(cell.ljust(width) for cell, width in zip(row, widths, strict=False)),
                shorten_front(row[4], room),
            ]
        )
        for row in rows
    ]


def format_task(task: ParkedTask, deaths: Sequence[Death]) -> list[str]:
    """Return all that is known of a task, for people."""
    lines = [
        *paragraph("task", task.task_id),
        *paragraph("name", task.name),
        *paragraph("queue", ",".join(task.queues)),
        *paragraph("parked", f"{utc(task.at)} by {task.node}"),
        *paragraph("arguments", task.arguments),
        *paragraph("died", times(len(deaths))),
    ]
    for death in deaths:
        where = death.node if death.pid is None else f"{death.node}, pid {death.pid}"
        size = "" if death.tree_bytes is None else f", {death.tree_bytes / MIB:.0f} MiB"
        lines += paragraph("", f"{utc(death.at)} on {where}{size}: {death.how}", hang="  ")
    return lines


def paragraph(name: str, text: str, hang: str = "") -> list[str]:
    """Return text beside its name, in lines of at most 80 columns."""
    first = name.ljust(11)
    return textwrap.wrap(
        text, COLUMNS, initial_indent=first, subsequent_indent=" " * len(first) + hang, break_on_hyphens=False
    )


def describe(task: ParkedTask, deaths: Sequence[Death]) -> dict[str, Any]:
    """Return a task as a document, its message as the broker had it."""
    return {
        "id": task.task_id,
        "name": task.name,
        "queues": task.queues,
        "arguments": task.arguments,
        "parked_at": task.at,
        "node": task.node,
        "deaths": [msgspec.to_builtins(death) for death in deaths],
        "message": json.loads(bytes(task.message)),
    }


def utc(at: float) -> str:
    """Say a time for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
