"""`recyclery status`: the governor's status document, as it is or as a page of text."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

import msgspec

from recyclery.common.exit_codes import fail
from recyclery.common.units import format_mib as mib
from recyclery.config.paths import find_runtime_dir
from recyclery.control.client import Declined, NoSupervisor, ask_governor
from recyclery.control.status_schema import BrowserStatus, Status


def print_status(args: argparse.Namespace) -> int:
    """Print the status; return 1 with a message without a supervisor."""
    try:
        document = ask_governor(find_runtime_dir(os.environ), "status")
    except (NoSupervisor, Declined) as error:
        return fail(error, 1)
    print(json.dumps(document, indent=2) if args.json else format_status(document))
    return 0


def format_status(document: dict[str, Any]) -> str:
    """Return the document as a page of at most 80 columns."""
    status = msgspec.convert(document, Status)
    container, parked = status.container, status.tasks.parked
    lines = [
        f"memory    {mib(container.floor_bytes)} of {mib(container.limit_bytes)} cannot be reclaimed "
        f"({container.floor_bytes / container.limit_bytes:.0%})",
        f"          usage {mib(container.usage_bytes)}, working set {mib(container.working_set_bytes)}, "
        f"OOM kills {container.oom_kills}",
        f"          read from {container.source}",
        *format_browsers(status.browsers),
        *([f"parked    {parked} after repeated deaths: `recyclery parked list`"] if parked else []),
    ]
    for name, pool in status.pools.items():
        depth = "unknown" if pool.queue_depth is None else pool.queue_depth
        recycles = ", ".join(f"{count} {reason}" for reason, count in pool.recycles.items()) or "none"
        lines += [
            "",
            f"{name}  {pool.state}, {','.join(pool.queues)}, {depth} waiting",
            f"  concurrency {pool.concurrency}, {pool.max_tasks_per_child} tasks per child; "
            f"recycles: {recycles}",
        ]
        if pool.successor:
            lines.append(f"  {pool.successor.slot} starts to take over from {pool.slot}")
        lines += [
            f"  {worker.slot} drains: {', '.join(worker.tasks) or 'no task any more'}"
            for worker in pool.draining
        ]
        lines += [
            f"  {child.pid:>8} {mib(child.pss_bytes):>9} {child.tasks_done:>5} done "
            f"{child.age_seconds:>7.0f} s  {(child.task or 'idle')[-38:]}"
            for child in pool.children
        ]
    return "\n".join(lines)


def format_browsers(browsers: BrowserStatus) -> list[str]:
    """Return the browsers' lines: those in use and reaped, and any that need attention."""
    kept = f" ({browsers.kept} kept for next tasks)" if browsers.kept else ""
    lines = [f"browsers  {browsers.in_use} in use{kept}, {browsers.reaped} reaped so far"]
    wrong = {
        "orphaned": browsers.orphans,
        "left over": browsers.leftovers,
        "runaway": browsers.runaway,
        "defunct": browsers.defunct,
        "strangers": browsers.strangers,
    }
    if any(wrong.values()):
        lines.append(f"          {', '.join(f'{number} {kind}' for kind, number in wrong.items() if number)}")
    if browsers.grid_ended:
        lines.append(f"          {browsers.grid_ended} sessions of dead children ended on the Grid")
    return lines
