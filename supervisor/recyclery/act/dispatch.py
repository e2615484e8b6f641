"""Carries out one action in bounded time and returns its outcome, with one line for the log."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from recyclery.act.cleanup import remove_leftovers
from recyclery.act.kill import kill_processes, signal_process
from recyclery.config.paths import supervisord_socket
from recyclery.decide import actions
from recyclery.decide.actions import Action, Outcome
from recyclery.observe.snapshot import Process
from recyclery.observe.supervisord import SupervisordUnavailable, call_supervisord
from recyclery.observe.workers import WorkerUnavailable, ask_worker
from recyclery_worker import link


async def perform(
    action: Action, runtime_dir: Path, slots: Mapping[str, str], read_floor: Callable[[], int | None]
) -> Outcome:
    """Carry out one action; `slots` maps each pool to its active worker's slot."""
    try:
        match action:
            case actions.Kill():
                return await kill(action, read_floor)
            case actions.WorkerRequest():
                slot, request = action.request(slots)
                reply = await ask_worker(runtime_dir, slot, request)
                if isinstance(reply, link.Refused):
                    return Outcome(done=False, refused=True, line=f"{action.summary}; refused: {reply.reason}")
                return Outcome(done=True, line=f"{action.summary}; {action.result}")
            case actions.SupervisordRequest():
                method, *arguments = action.call()
                await asyncio.to_thread(call_supervisord, supervisord_socket(runtime_dir), method, *arguments)
                return Outcome(done=True, line=f"{action.summary}; {action.result}")
            case actions.RemoveFiles():
                removed = await asyncio.to_thread(remove_leftovers, action.leftover_files)
                names = ", ".join(map(str, removed)) or "nothing"
                return Outcome(done=True, line=f"{action.summary}: removed {names} of browsers that are gone")
            case actions.EndGridSession():
                # Imported lazily: urllib costs memory, and few have a Grid.
                from recyclery.act.selenium_grid import end_grid_session  # noqa: PLC0415

                return await end_grid_session(action, os.environ.get("SELENIUM_REMOTE_URL", ""))
            case actions.ReapZombies():
                sent = signal_process(action.owner, link.COLLECT_SIGNAL)
                return Outcome(done=sent, line=f"{action.summary}; {'told' if sent else 'gone'}")
            case actions.Warn():
                return Outcome(done=True, line=action.summary)
    except (WorkerUnavailable, SupervisordUnavailable) as error:
        return Outcome(done=False, line=f"{action.summary}; not done: {error}")


async def kill(action: actions.Kill, read_floor: Callable[[], int | None]) -> Outcome:
    """Kill the processes; report which are left, and the unreclaimable memory before and after."""
    before = read_floor()
    left = await kill_processes(action.processes)
    after = read_floor()
    came = "all gone" if not left else f"{len(left)} still there: {count_names(left)}"
    if before is not None and after is not None:
        came += f", {before >> 20} MiB became {after >> 20}"
    line = f"{action.summary}: killed {count_names(action.processes)}; {action.reason}; {came}"
    return Outcome(done=not left, line=line)


def count_names(processes: Iterable[Process]) -> str:
    counts = Counter(process.name for process in processes)
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in counts.items())
