"""What pool children say of themselves: the datagrams of task starts and ends, and the workers' own word."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from recyclery.observe.snapshot import Owner
from recyclery_worker.link import MAX_PACKET_BYTES, VERSION, ChildReport, Report, WorkerStat, decode_report

log = logging.getLogger("recyclery")

# A result and its datagram travel apart: neither is late before this has passed.
REPORT_DELAY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ChildState:
    """What is known of a child's tasks."""

    tasks_done: int = 0
    task_id: str | None = None
    task_name: str | None = None
    task_started: float | None = None
    first_task_started: float | None = None
    last_task_ended: float | None = None
    heard: float = 0.0
    idle_bytes: int = 0
    kept: tuple[int, ...] = ()
    remote: tuple[str, ...] = ()
    tracing: str = ""


def bind_reports(path: Path) -> socket.socket:
    """Return the datagram socket that children and main processes report to, 0600; raises OSError."""
    reports = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    path.unlink(missing_ok=True)
    reports.bind(str(path))
    path.chmod(0o600)
    return reports


def read_reports(reports: socket.socket) -> Iterator[Report]:
    """Yield every report that waits; what cannot be read, or is of another version, is dropped and said."""
    while True:
        try:
            report = decode_report(reports.recv(MAX_PACKET_BYTES))
        except BlockingIOError:
            return
        except msgspec.DecodeError as error:
            log.warning("a datagram that is no report was dropped: %s", error)
            continue
        if report.version == VERSION:
            yield report
        else:
            log.warning("a report of version %d was dropped: ours is %d", report.version, VERSION)


def apply_report(states: dict[Owner, ChildState], report: ChildReport) -> bool:
    """Take in a child's report; tell whether it says that a task has ended."""
    owner = Owner(report.pool, report.pid, report.start_ticks)
    before = states.get(owner, ChildState())
    if report.sent < before.heard:
        return False
    states[owner] = ChildState(
        tasks_done=report.tasks_done,
        task_id=report.task_id,
        task_name=report.task_name,
        task_started=find_task_start(before, report.task_id, report.sent),
        first_task_started=report.first_task_started,
        last_task_ended=report.last_task_ended,
        heard=report.sent,
        idle_bytes=report.idle_bytes,
        kept=tuple(report.kept),
        remote=tuple(report.remote),
        tracing=report.tracing,
    )
    return report.last_task_ended is not None and report.last_task_ended != before.last_task_ended


def find_task_start(before: ChildState, task_id: str | None, told: float) -> float | None:
    """Return when a child's task started: as it was first told of; None without a task."""
    if task_id is None:
        return None
    return before.task_started if task_id == before.task_id else told


def apply_worker_stat(states: dict[Owner, ChildState], owners: dict[int, Owner], stat: WorkerStat) -> None:
    """Mend what no datagram told: the worker has the result of a task, or knows of one that was begun."""
    for child in stat.children:
        owner = owners.get(child.pid)
        if owner is None:
            continue
        before = states.get(owner)
        if before is None:
            # A governor that comes anew has heard nothing of a task that runs, nor when it began.
            if child.task_id is not None:
                states[owner] = ChildState(
                    tasks_done=child.tasks_done,
                    task_id=child.task_id,
                    task_name=child.task_name,
                    heard=stat.sent,
                )
            continue
        if stat.sent - before.heard < REPORT_DELAY_SECONDS:
            continue
        if child.task_id is not None and before.task_id is None:
            states[owner] = replace(
                before,
                task_id=child.task_id,
                task_name=child.task_name,
                task_started=stat.sent,
                heard=stat.sent,
            )
        elif child.task_id is None and before.task_id is not None and child.tasks_done > before.tasks_done:
            states[owner] = replace(
                before,
                tasks_done=child.tasks_done,
                task_id=None,
                task_name=None,
                task_started=None,
                last_task_ended=stat.sent - REPORT_DELAY_SECONDS,
                heard=stat.sent,
            )


def forget_children(states: dict[Owner, ChildState], living: set[Owner], now: float) -> None:
    """Drop children that are gone; a child whose report came before its process was seen is kept a while."""
    for owner in [owner for owner, state in states.items() if owner not in living and now - state.heard > 60]:
        del states[owner]
