"""Carries out one decided action and tells what came of it, in one line a person can read."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recyclery.act.kill import kill_processes, nudge_child
from recyclery.decide.actions import Action, Collect, Preempt, Reap, Replace, Retire
from recyclery.init.programs import supervisor_socket
from recyclery.observe.engine import EngineAway, ask_engine
from recyclery.observe.snapshot import Process
from recyclery.observe.workers import NoAnswer, ask_worker
from recyclery_worker import link


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether an action did what it was for, and the line for the log."""

    done: bool
    line: str


async def perform(action: Action, runtime_dir: Path) -> Outcome:
    """Do one thing, in a bounded time."""
    if isinstance(action, Retire):
        return await retire(action, runtime_dir)
    if isinstance(action, Replace):
        return await replace(action, runtime_dir)
    if isinstance(action, Collect):
        return collect(action)
    return await kill(action)


async def retire(action: Retire, runtime_dir: Path) -> Outcome:
    """Ask the worker to let the child go."""
    what = f"retire {action.owner.pool}/{action.owner.pid}: {action.reason}"
    try:
        reply = await ask_worker(runtime_dir, action.owner.pool, link.Retire(pid=action.owner.pid))
    except NoAnswer as silence:
        return Outcome(done=False, line=f"{what}; not done: {silence}")
    if isinstance(reply, link.Refused):
        return Outcome(done=False, line=f"{what}; refused: {reply.reason}")
    return Outcome(done=True, line=f"{what}; it leaves after its task")


async def replace(action: Replace, runtime_dir: Path) -> Outcome:
    """Have the worker stop after its running tasks; PID 1 starts it again when it has."""
    what = f"replace {action.pool}: {action.reason}"
    try:
        await asyncio.to_thread(
            ask_engine, supervisor_socket(runtime_dir), "signalProcess", action.pool, "TERM"
        )
    except EngineAway as error:
        return Outcome(done=False, line=f"{what}; not done: {error}")
    return Outcome(done=True, line=f"{what}; it stops after its running tasks, and starts anew")


def collect(action: Collect) -> Outcome:
    """Tell the child; what came of it shows in the next snapshot."""
    told = nudge_child(action.owner)
    line = f"collect in {action.owner.pool}/{action.owner.pid}: {action.reason}; {'told' if told else 'gone'}"
    return Outcome(done=told, line=line)


async def kill(action: Reap | Preempt) -> Outcome:
    """Kill what the action names, and look whether it is gone."""
    verb = f"reap {action.kind} of" if isinstance(action, Reap) else "preempt"
    left = await kill_processes(action.processes)
    came = "all gone" if not left else f"{len(left)} still there: {names(left)}"
    return Outcome(
        done=not left,
        line=(
            f"{verb} {action.owner.pool}/{action.owner.pid}: killed {names(action.processes)}; "
            f"{action.reason}; {came}"
        ),
    )


def names(processes: Iterable[Process]) -> str:
    """Say what processes there are, alike ones together."""
    counts = Counter(process.name for process in processes)
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in counts.items())
