"""`recyclery status`: ask the governor, print a page for people or the document itself."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from recyclery.config.paths import find_runtime_dir
from recyclery.control.client import Declined, NoSupervisor, ask_governor

MIB = 1 << 20


def print_status(*, as_json: bool) -> int:
    """Print the status; return 1 with a message when there is no supervisor to ask."""
    try:
        status = ask_governor(find_runtime_dir(os.environ), "status")
    except (NoSupervisor, Declined) as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return 1
    print(json.dumps(status, indent=2) if as_json else format_status(status))
    return 0


def format_status(status: dict[str, Any]) -> str:
    """Return the document as a page of at most 80 columns."""
    container, browsers = status["container"], status["browsers"]
    limit = container["limit_bytes"]
    lines = [
        f"memory    {mib(container['floor_bytes'])} of {mib(limit)} cannot be reclaimed "
        f"({container['floor_bytes'] / limit:.0%})",
        f"          usage {mib(container['usage_bytes'])}, working set {mib(container['working_set_bytes'])}, "
        f"OOM kills {container['oom_kills']}",
        f"          read from {container['source']}",
        *format_browsers(browsers),
        *format_parked(status["tasks"]["parked"]),
    ]
    for name, pool in status["pools"].items():
        depth = "unknown" if pool["queue_depth"] is None else pool["queue_depth"]
        recycles = ", ".join(f"{count} {reason}" for reason, count in pool["recycles"].items()) or "none"
        lines += [
            "",
            f"{name}  {pool['state']}, {','.join(pool['queues'])}, {depth} waiting",
            f"  concurrency {pool['concurrency']}, {pool['max_tasks_per_child']} tasks per child; "
            f"recycles: {recycles}",
        ]
        if pool["successor"]:
            lines.append(f"  {pool['successor']['slot']} starts to take over from {pool['slot']}")
        lines += [
            f"  {former['slot']} drains: {', '.join(former['tasks']) or 'no task any more'}"
            for former in pool["draining"]
        ]
        lines += [
            f"  {child['pid']:>8} {mib(child['pss_bytes']):>9} {child['tasks_done']:>5} done "
            f"{child['age_seconds']:>7.0f} s  {(child['task'] or 'idle')[-38:]}"
            for child in pool["children"]
        ]
    return "\n".join(lines)


def format_browsers(browsers: dict[str, int]) -> list[str]:
    """Return the browsers' lines: what is used and was reaped, and what is wrong where something is."""
    kept = f" ({browsers['kept']} kept for next tasks)" if browsers["kept"] else ""
    lines = [f"browsers  {browsers['in_use']} in use{kept}, {browsers['reaped']} reaped so far"]
    wrong = {
        "orphaned": browsers["orphans"],
        "left over": browsers["leftovers"],
        "runaway": browsers["runaway"],
        "defunct": browsers["defunct"],
        "strangers": browsers["strangers"],
    }
    if any(wrong.values()):
        lines.append(f"          {', '.join(f'{number} {kind}' for kind, number in wrong.items() if number)}")
    if browsers["grid_ended"]:
        lines.append(f"          {browsers['grid_ended']} sessions of dead children ended on the Grid")
    return lines


def format_parked(parked: int) -> list[str]:
    """Return a line where tasks wait for a person."""
    return [f"parked    {parked} after repeated deaths: `recyclery parked list`"] if parked else []


def mib(size_bytes: int) -> str:
    """Say a size for people."""
    return f"{size_bytes / MIB:.0f} MiB"
