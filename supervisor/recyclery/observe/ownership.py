"""Attributes each process to the pool child that started it, living or dead.

A child leads its session, and its descendants keep the session's id when their parents are gone. Those that
leave the session (Chrome's crashpad handler) still have the marker in their environment. A browser without an
owner that does not descend from a worker's main process is foreign.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from recyclery.observe.snapshot import Owner, Process

# A browser starts its crashpad handlers at once.
HANDLER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Ownership:
    """Processes by owner, the owners by session (for the next snapshot), and foreign browsers."""

    living: Mapping[Owner, tuple[Process, ...]]
    dead: Mapping[Owner, tuple[Process, ...]]
    sessions: Mapping[int, Owner]
    foreign_browsers: tuple[Process, ...] = ()

    @property
    def owners(self) -> dict[int, Owner]:
        """Owners by pid."""
        groups = [*self.living.items(), *self.dead.items()]
        return {process.pid: owner for owner, members in groups for process in members}


def assign_owners(
    processes: Iterable[Process],
    mains: Mapping[int, str],
    markers: Mapping[int, Owner],
    known_sessions: Mapping[int, Owner],
) -> Ownership:
    """Attribute each process to its owner.

    `mains` are the main processes (pid to pool), `markers` the owners by pid, `known_sessions` those of the
    snapshot before. A session's id is not reused while a member lives, so it can be trusted.
    """
    table = {process.pid: process for process in processes}
    in_use = {process.session for process in table.values()}
    sessions = {session: owner for session, owner in known_sessions.items() if session in in_use}
    sessions |= {
        process.pid: Owner(mains[process.parent], process.pid, process.start_ticks)
        for process in table.values()
        if process.parent in mains and process.session == process.pid and not process.is_defunct
    }
    for pid, owner in markers.items():
        if table[pid].session == owner.pid:
            sessions.setdefault(owner.pid, owner)

    owned: dict[Owner, list[Process]] = {}
    foreign = []
    for process in table.values():
        found: Owner | None = None
        # By its session, its marker, or the nearest ancestor that has one.
        for line in ancestry(process, table):
            found = sessions.get(line.session) or markers.get(line.pid)
            if found is not None:
                break
        if found is not None:
            owned.setdefault(found, []).append(process)
        elif (
            # Where no worker is known, whatever has no owner may be theirs.
            mains
            # A Firefox in the same PID namespace may be somebody's desktop.
            and process.is_chrome
            and not process.is_defunct
            and not any(line.pid in mains for line in ancestry(process, table))
        ):
            foreign.append(process)
    living: dict[Owner, tuple[Process, ...]] = {}
    dead: dict[Owner, tuple[Process, ...]] = {}
    for owner, members in owned.items():
        leader = table.get(owner.pid)
        alive = leader is not None and leader.start_ticks == owner.start_ticks and not leader.is_defunct
        (living if alive else dead)[owner] = tuple(members)
    return Ownership(living, dead, sessions, tuple(foreign))


def ancestry(process: Process, table: Mapping[int, Process]) -> Iterator[Process]:
    """Yield a process and its known ancestors."""
    seen: set[int] = set()
    found: Process | None = process
    while found is not None and found.pid not in seen:
        yield found
        seen.add(found.pid)
        found = table.get(found.parent)


def browser_groups(processes: Iterable[Process], owner_pid: int) -> list[tuple[Process, ...]]:
    """Split an owner's browser processes into browsers: each the tree below one topmost browser process.

    Crashpad handlers, which leave that tree, belong to the browser that had just started when they did.
    """
    browsers = {
        process.pid: process for process in processes if process.is_browser and process.pid != owner_pid
    }
    groups: dict[int, list[Process]] = {}
    for process in browsers.values():
        top = process
        while top.parent in browsers and top.parent != top.pid:
            top = browsers[top.parent]
        groups.setdefault(top.pid, []).append(process)
    for pid in [pid for pid, group in groups.items() if all(member.is_crashpad for member in group)]:
        browser = find_handler_browser(browsers[pid], groups.values())
        if browser is not None:
            browser += groups.pop(pid)
    return [tuple(sorted(group, key=lambda process: process.start_ticks)) for group in groups.values()]


def find_handler_browser(handler: Process, groups: Iterable[list[Process]]) -> list[Process] | None:
    """Return the browser that started a crashpad handler, by their start times."""
    browsers = {}
    for group in groups:
        begun = [process.started for process in group if not (process.is_crashpad or process.is_driver)]
        if begun and 0 <= handler.started - min(begun) < HANDLER_SECONDS:
            browsers[min(begun)] = group
    return browsers[max(browsers)] if browsers else None


def count_browsers(processes: Iterable[Process], owner_pid: int) -> int:
    """Count an owner's browsers; a crashpad handler alone is none."""
    return len(running_browsers(processes, owner_pid))


def running_browsers(processes: Iterable[Process], owner_pid: int) -> list[tuple[Process, ...]]:
    """Return an owner's running browsers, without those of which only crashpad handlers are left."""
    groups = browser_groups((process for process in processes if not process.is_defunct), owner_pid)
    return [group for group in groups if any(not process.is_crashpad for process in group)]
