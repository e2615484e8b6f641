"""Carries out one decided action and tells what came of it, in one line a person can read."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from recyclery.act.cleanup import clean
from recyclery.act.kill import kill_processes, nudge_child
from recyclery.act.outcome import Outcome
from recyclery.act.supervisord import take_step
from recyclery.decide.actions import (
    Abandon,
    Action,
    Clean,
    Collect,
    Dismiss,
    EndSession,
    Evict,
    Hold,
    KillWorker,
    Leave,
    Notice,
    Preempt,
    Reap,
    Reclaim,
    Replace,
    Retire,
    Scale,
    TellFell,
    TimeOut,
    Tune,
)
from recyclery.observe.snapshot import Process
from recyclery.observe.workers import NoAnswer, ask_worker
from recyclery_worker import link

HOLD_SECONDS = 15.0
"""How long a worker stays on hold when nobody renews it."""


async def perform(
    action: Action, runtime_dir: Path, slots: Mapping[str, str], read_floor: Callable[[], int | None]
) -> Outcome:
    """Do one thing, in a bounded time, and look what came of it; `slots` are those of the pools' workers."""
    match action:
        case Reap() | Preempt() | KillWorker() | Evict():
            return await kill(action, read_floor)
        case Clean():
            return await clean_up(action)
        case EndSession():
            # Urllib costs memory, and few have a Grid.
            from recyclery.act.selenium_grid import end_session  # noqa: PLC0415

            return await end_session(action, os.environ.get("SELENIUM_REMOTE_URL", ""))
        case Collect():
            return collect(action)
        case Replace() | Leave() | Abandon():
            return await take_step(action, runtime_dir)
        case Reclaim():
            return await ask(
                runtime_dir,
                action.through,
                link.Reclaim(generation=action.generation),
                f"reclaim what {action.pool} held: {action.reason}",
                f"{action.through} gives it back",
            )
        case TellFell(through=through, fell=fell):
            return await ask(
                runtime_dir,
                through,
                fell,
                f"note that {fell.pid} died with {fell.tree_bytes >> 20} MiB amid task {fell.task_id}",
                f"{through} takes it down",
            )
        case Dismiss(owner=owner):
            return await ask(
                runtime_dir,
                action.slot,
                link.Retire(pid=owner.pid),
                f"dismiss {owner.pool}/{owner.pid}: {action.reason}",
                "it leaves as soon as it has no task",
            )
        case Notice():
            return Outcome(done=True, line=action.text)
        case _:
            return await tell_worker(action, runtime_dir, slots)


async def tell_worker(
    action: Retire | TimeOut | Tune | Scale | Hold, runtime_dir: Path, slots: Mapping[str, str]
) -> Outcome:
    """Do one thing that only a pool's worker can."""
    match action:
        case Retire():
            return await ask(
                runtime_dir,
                slots[action.owner.pool],
                link.Retire(pid=action.owner.pid),
                f"retire {action.owner.pool}/{action.owner.pid}: {action.reason}",
                "it leaves as soon as it has no task",
            )
        case TimeOut():
            return await ask(
                runtime_dir,
                slots[action.owner.pool],
                link.TimeOut(pid=action.owner.pid),
                f"time out {action.owner.pool}/{action.owner.pid}: {action.reason}",
                "it is ended",
            )
        case Tune():
            return await ask(
                runtime_dir,
                slots[action.pool],
                link.SetMaxTasks(max_tasks=action.max_tasks),
                f"tune {action.pool} to {action.max_tasks} tasks per child: {action.reason}",
                "in force",
            )
        case Scale():
            return await ask(
                runtime_dir,
                slots[action.pool],
                link.SetConcurrency(concurrency=action.concurrency),
                f"scale {action.pool} to {action.concurrency} at a time: {action.reason}",
                "in force",
            )
        case Hold():
            return await ask(
                runtime_dir,
                slots[action.pool],
                link.Hold(seconds=HOLD_SECONDS if action.on else 0),
                f"{'hold' if action.on else 'let go'} {action.pool}: {action.reason}",
                "it takes no more tasks" if action.on else "it takes tasks again",
            )


async def ask(runtime_dir: Path, slot: str, request: link.Request, what: str, came: str) -> Outcome:
    """Ask the worker in a slot for something; `what` is asked for and why, `came` what comes of it."""
    try:
        reply = await ask_worker(runtime_dir, slot, request)
    except NoAnswer as silence:
        return Outcome(done=False, line=f"{what}; not done: {silence}")
    if isinstance(reply, link.Refused):
        return Outcome(done=False, refused=True, line=f"{what}; refused: {reply.reason}")
    return Outcome(done=True, line=f"{what}; {came}")


def collect(action: Collect) -> Outcome:
    """Tell the child; what came of it shows in the next snapshot."""
    told = nudge_child(action.owner)
    line = f"collect in {action.owner.pool}/{action.owner.pid}: {action.reason}; {'told' if told else 'gone'}"
    return Outcome(done=told, line=line)


async def kill(action: Reap | Preempt | KillWorker | Evict, read_floor: Callable[[], int | None]) -> Outcome:
    """Kill what the action names, and look whether it is gone and what that freed."""
    match action:
        case Reap(cause=cause, owner=owner):
            what = f"reap {cause} of {owner.pool}/{owner.pid}"
        case Preempt(owner=owner):
            what = f"preempt {owner.pool}/{owner.pid}"
        case KillWorker(pool=pool):
            what = f"give up on {pool}"
        case Evict():
            what = "reap strangers"
    before = read_floor()
    left = await kill_processes(action.processes)
    after = read_floor()
    came = "all gone" if not left else f"{len(left)} still there: {names(left)}"
    if before is not None and after is not None:
        came += f", {before >> 20} MiB became {after >> 20}"
    return Outcome(done=not left, line=f"{what}: killed {names(action.processes)}; {action.reason}; {came}")


async def clean_up(action: Clean) -> Outcome:
    """Remove folders that browsers have left, as far as nobody uses them."""
    removed = await asyncio.to_thread(clean, action.remains)
    return Outcome(
        done=True,
        line=f"clean up: removed {', '.join(map(str, removed)) or 'nothing'} of browsers that are gone",
    )


def names(processes: Iterable[Process]) -> str:
    """Say what processes there are, alike ones together."""
    counts = Counter(process.name for process in processes)
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in counts.items())
