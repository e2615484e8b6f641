"""browsers_torture_state: not a benchmark; what is in the cage between two sessions."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.browsers_meters import list_entries, pss_bytes
from benchmarks.browsers_stage import Stage
from recyclery.common.units import format_bytes
from recyclery.sandbox.guard import descendants
from recyclery_demo.cgroups import SandboxCgroup
from recyclery_worker.browser.profiles import UNLOCKED_SECONDS

# From the last task's end until all it left is gone; a half-made profile folder is left alone for a while.
SETTLE_SECONDS = UNLOCKED_SECONDS + 15.0
STATIC_NAMES = ("python", "recyclery", "celery")


@dataclass(frozen=True)
class State:
    """What is in the cage between two sessions: `own` are the supervisor's and the workers' processes.

    By pid that is the governor, the worker's main process, its children; PID 1 is not among them.
    """

    floor_bytes: int
    entries: frozenset[Path]
    own: tuple[int, ...]
    """The PSS of each in bytes."""
    foreign: tuple[str, ...]
    defunct: int


def observe(stage: Stage, cgroup: SandboxCgroup, known: frozenset[Path]) -> State:
    """Look until only the supervisor and its workers are left, for SETTLE_SECONDS at most."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        state = look(stage, cgroup)
        clean = not state.foreign and not state.defunct and not state.entries - known
        if clean or time.monotonic() > deadline:
            reclaim(cgroup)
            return replace(state, floor_bytes=cgroup.floor_bytes())
        time.sleep(0.2)


def reclaim(cgroup: SandboxCgroup) -> None:
    """Have the kernel take back all of the cgroup's memory that it can: caches are no one's leak."""
    name, amount = ("memory.force_empty", "0") if cgroup.version == 1 else ("memory.reclaim", "4G")
    with suppress(OSError):
        (cgroup.path / name).write_text(amount)


def look(stage: Stage, cgroup: SandboxCgroup) -> State:
    """Look once."""
    inside = descendants(stage.cage.pid)
    alive = [process for process in inside if not process.is_defunct]
    foreign = sorted(process.name for process in alive if not process.name.startswith(STATIC_NAMES))
    own = sorted(process.pid for process in alive if process.name.startswith(STATIC_NAMES))
    return State(
        floor_bytes=cgroup.floor_bytes(),
        entries=frozenset(list_entries([stage.temporary, stage.shared_memory])),
        own=tuple(pss_bytes([pid]) for pid in own),
        foreign=tuple(foreign),
        defunct=sum(process.is_defunct for process in inside),
    )


def say_state(when: str, state: State) -> None:
    """Tell what was seen."""
    print(
        f"{when}: floor {format_bytes(state.floor_bytes)}, {len(state.own)} processes of ours, "
        f"{len(state.foreign)} of sessions, "
        f"{state.defunct} defunct, {len(state.entries)} files",
        flush=True,
    )
