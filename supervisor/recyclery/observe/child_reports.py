"""The pool children's reports: datagrams at task starts and ends, completed by the workers' stats."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from recyclery.observe.snapshot import ChildState, Owner
from recyclery_worker.link import LINK_VERSION, MAX_PACKET_BYTES, ChildReport, Report, WorkerStat, decode_report

log = logging.getLogger("recyclery")

# A datagram may arrive this much later than its result, or earlier.
REPORT_DELAY_SECONDS = 0.5


def bind_reports(path: Path) -> socket.socket:
    """Bind and return the datagram socket for reports, 0600; raises OSError."""
    reports = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    path.unlink(missing_ok=True)
    reports.bind(str(path))
    path.chmod(0o600)
    return reports


def read_reports(reports: socket.socket) -> Iterator[Report]:
    """Yield all waiting reports; invalid ones and those of another version are dropped and logged."""
    while True:
        try:
            report = decode_report(reports.recv(MAX_PACKET_BYTES))
        except BlockingIOError:
            return
        except msgspec.DecodeError as error:
            log.warning("a datagram that is no report was dropped: %s", error)
            continue
        if report.version == LINK_VERSION:
            yield report
        else:
            log.warning("a report of version %d was dropped: ours is %d", report.version, LINK_VERSION)


def apply_report(states: dict[Owner, ChildState], report: ChildReport) -> bool:
    """Apply a child's report; return whether a task has ended."""
    owner = Owner(report.pool, report.pid, report.start_ticks)
    before = states.get(owner, ChildState())
    if report.sent < before.heard:
        return False
    task_started = before.task_started if report.task_id == before.task_id else report.sent
    states[owner] = ChildState(
        tasks_done=report.tasks_done,
        task_id=report.task_id,
        task_name=report.task_name,
        task_started=task_started if report.task_id is not None else None,
        first_task_started=report.first_task_started,
        last_task_ended=report.last_task_ended,
        heard=report.sent,
        idle_bytes=report.idle_bytes,
        kept=tuple(report.kept),
        remote=tuple(report.remote),
        tracing=report.tracing,
    )
    return report.last_task_ended is not None and report.last_task_ended != before.last_task_ended


def apply_worker_stat(states: dict[Owner, ChildState], owners: dict[int, Owner], stat: WorkerStat) -> None:
    """Apply a worker's stat where a datagram is missing: a task has started, or its result has arrived."""
    for child in stat.children:
        owner = owners.get(child.pid)
        if owner is None:
            continue
        before = states.get(owner)
        told: dict[str, Any] = {"task_id": child.task_id, "task_name": child.task_name, "heard": stat.sent}
        if before is None:
            # A restarted governor has no report of a running task, nor when it started.
            if child.task_id is not None:
                states[owner] = ChildState(tasks_done=child.tasks_done, **told)
        elif stat.sent - before.heard < REPORT_DELAY_SECONDS:
            continue
        elif child.task_id is not None and before.task_id is None:
            states[owner] = replace(before, task_started=stat.sent, **told)
        elif child.task_id is None and before.task_id is not None and child.tasks_done > before.tasks_done:
            ended = stat.sent - REPORT_DELAY_SECONDS
            told |= {"tasks_done": child.tasks_done, "task_started": None, "last_task_ended": ended}
            states[owner] = replace(before, **told)


def forget_children(states: dict[Owner, ChildState], living: set[Owner], now: float) -> None:
    """Drop children that are gone; one that reported before its process was observed is kept for a minute."""
    for owner in [owner for owner, state in states.items() if owner not in living and now - state.heard > 60]:
        del states[owner]
