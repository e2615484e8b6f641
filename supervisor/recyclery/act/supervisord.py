"""The steps of a handoff, each asked of PID 1: it keeps the deadlines, and goes on when the governor dies."""

from __future__ import annotations

import asyncio
from pathlib import Path

from recyclery.act.outcome import Outcome
from recyclery.decide.actions import Abandon, Leave, Replace
from recyclery.observe.supervisord import EngineAway, ask_engine
from recyclery.pid1.supervisord_conf import supervisor_socket


async def take_step(action: Replace | Leave | Abandon, runtime_dir: Path) -> Outcome:
    """Do one step of a handoff, and tell what comes of it."""
    match action:
        case Replace():
            return await replace(action, runtime_dir)
        case Leave():
            return await leave(action, runtime_dir)
        case Abandon():
            return await abandon(action, runtime_dir)


async def replace(action: Replace, runtime_dir: Path) -> Outcome:
    """Start a worker's successor; where there is no room for two, have it drain and start anew."""
    what = f"replace {action.pool}: {action.reason}"
    if action.successor is None:
        came = "it stops after its running tasks, and starts anew"
        return await ask(runtime_dir, what, came, "recyclery.renew", action.slot)
    came = f"{action.successor} starts, and {action.slot} takes tasks until that does"
    return await ask(runtime_dir, what, came, "supervisor.startProcess", action.successor, False)


async def leave(action: Leave, runtime_dir: Path) -> Outcome:
    """Have the old worker finish its tasks and go."""
    what = f"hand {action.pool} over from {action.slot} to {action.successor}: {action.reason}"
    came = f"{action.slot} finishes the tasks that it has, and leaves"
    return await ask(runtime_dir, what, came, "recyclery.leave", action.slot)


async def abandon(action: Abandon, runtime_dir: Path) -> Outcome:
    """Stop a successor."""
    what = f"give up {action.slot}, which was to take over {action.pool}: {action.reason}"
    came = "the worker that there is goes on"
    return await ask(runtime_dir, what, came, "supervisor.stopProcess", action.slot, False)


async def ask(runtime_dir: Path, what: str, came: str, method: str, *arguments: str | bool) -> Outcome:
    """Ask PID 1; `what` is asked for and why, `came` what comes of it."""
    try:
        await asyncio.to_thread(ask_engine, supervisor_socket(runtime_dir), method, *arguments)
    except EngineAway as error:
        return Outcome(done=False, line=f"{what}; not done: {error}")
    return Outcome(done=True, line=f"{what}; {came}")
