"""`trace`: has a pool's worker choose a child that traces the allocations of a task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from recyclery.decide.budget import find_view
from recyclery.observe.active_worker import is_up
from recyclery.observe.snapshot import Snapshot
from recyclery.observe.workers import NoAnswer, ask_worker
from recyclery.serve.control import Problem
from recyclery_worker import link


class Tracing(msgspec.Struct):
    """The child that was told to trace, and what it is at: it begins when that is done."""

    pid: int
    task: str


async def ask_to_trace(
    runtime_dir: Path, pool: str, order: Mapping[str, str], snapshot: Snapshot
) -> Tracing | Problem:
    """Pass an order on to the pool's worker; return which child has it, or why none."""
    view = find_view(snapshot, pool)
    if view is None:
        return Problem(error=f"{pool!r} is no pool: there are {', '.join(v.name for v in snapshot.pools)}")
    if not is_up(view):
        return Problem(error=f"{pool} is {view.state}: there is no child that could trace")
    try:
        request = msgspec.convert(order, link.Trace, strict=False)
        reply = await ask_worker(runtime_dir, view.slot, request)
    except msgspec.ValidationError as error:
        return Problem(error=f"no order to trace: {error}")
    except NoAnswer as silence:
        return Problem(error=f"its worker does not answer: {silence}")
    match reply:
        case link.Canary(pid=pid):
            at = next((child.task_name for child in snapshot.children if child.owner.pid == pid), None)
            return Tracing(pid=pid, task=at or "")
        case link.Refused(reason=reason):
            return Problem(error=f"{pool} cannot trace: {reason}")
        case _:
            return Problem(error=f"{pool} does not know how to trace: its worker is of another version")
