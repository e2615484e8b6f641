"""Whose process is it: every process is given to the pool child that started it, living or dead.

A child leads its session, and what it starts keeps the session's id even when its parents are gone. What
leaves the session (Chrome's crashpad handler) still carries the marker in its environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from recyclery.observe.snapshot import Owner, Process


@dataclass(frozen=True, slots=True)
class Ownership:
    """Processes by owner, and the sessions by which they were told (to be handed to the next reading)."""

    living: Mapping[Owner, tuple[Process, ...]]
    dead: Mapping[Owner, tuple[Process, ...]]
    sessions: Mapping[int, Owner]


def attribute(
    processes: Iterable[Process],
    mains: Mapping[int, str],
    markers: Mapping[int, Owner],
    known_sessions: Mapping[int, Owner],
) -> Ownership:
    """Give each process to its owner.

    `mains` are the pools' main processes (pid to pool), `markers` owners by pid, `known_sessions` those of the
    reading before. A session's id is not given to another process while a member lives, so it can be trusted.
    """
    table = {process.pid: process for process in processes}
    sessions = {
        process.pid: Owner(mains[process.parent], process.pid, process.start_ticks)
        for process in table.values()
        if process.parent in mains and process.session == process.pid and not process.is_defunct
    }
    in_use = {process.session for process in table.values()}
    for session, owner in known_sessions.items():
        if session in in_use:
            sessions.setdefault(session, owner)
    for pid, owner in markers.items():
        if table[pid].session == owner.pid:
            sessions.setdefault(owner.pid, owner)

    owned: dict[Owner, list[Process]] = {}
    for process in table.values():
        found = find_owner(process, table, sessions, markers)
        if found is not None:
            owned.setdefault(found, []).append(process)
    living: dict[Owner, tuple[Process, ...]] = {}
    dead: dict[Owner, tuple[Process, ...]] = {}
    for owner, members in owned.items():
        leader = table.get(owner.pid)
        alive = leader is not None and leader.start_ticks == owner.start_ticks and not leader.is_defunct
        (living if alive else dead)[owner] = tuple(members)
    return Ownership(living=living, dead=dead, sessions=sessions)


def find_owner(
    process: Process,
    table: Mapping[int, Process],
    sessions: Mapping[int, Owner],
    markers: Mapping[int, Owner],
) -> Owner | None:
    """Return the owner of a process by its session, its marker, or the nearest ancestor that has one."""
    seen: set[int] = set()
    while process.pid not in seen:
        owner = sessions.get(process.session) or markers.get(process.pid)
        if owner is not None:
            return owner
        seen.add(process.pid)
        parent = table.get(process.parent)
        if parent is None:
            return None
        process = parent
    return None


def browser_groups(processes: Iterable[Process], owner_pid: int) -> list[tuple[Process, ...]]:
    """Split an owner's browser processes into browsers: each the tree below one topmost browser process."""
    browsers = {
        process.pid: process for process in processes if process.is_browser and process.pid != owner_pid
    }
    groups: dict[int, list[Process]] = {}
    for process in browsers.values():
        top = process
        while top.parent in browsers and top.parent != top.pid:
            top = browsers[top.parent]
        groups.setdefault(top.pid, []).append(process)
    return [tuple(sorted(group, key=lambda process: process.start_ticks)) for group in groups.values()]


def count_browsers(processes: Iterable[Process], owner_pid: int) -> int:
    """Count an owner's browsers; a crashpad handler, which leaves its browser's tree, is none by itself."""
    groups = browser_groups((process for process in processes if not process.is_defunct), owner_pid)
    return sum(any(not process.is_crashpad for process in group) for group in groups)
