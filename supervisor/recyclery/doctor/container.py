"""The container: its memory against what the pools need, and who is its PID 1."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from recyclery.config.settings import Settings
from recyclery.doctor.findings import Finding, failure, note, ok, warning
from recyclery.observe.cgroup import find_memory_cgroup
from recyclery.observe.processes import read_file

MIB = 1 << 20
# A session's PSS on a short page (scripts/bench browsers --part flags), and what a forked child has of its own.
BROWSER_BYTES = 250 * MIB
CHILD_BYTES = 15 * MIB
SUPERVISION_BYTES = 45 * MIB
SHARED_MEMORY = "/dev/shm"  # noqa: S108  # a name of the kernel
RAILWAY_DRAIN = "RAILWAY_DEPLOYMENT_DRAINING_SECONDS"


@dataclass(frozen=True)
class ContainerFacts:
    """Memory in bytes; the limit is None where nothing sets one."""

    limit_bytes: int | None
    source: str
    app_bytes: int
    """What a process holds that has imported the app: this one."""
    shm_bytes: int
    init: tuple[str, ...]
    """The words of PID 1's command."""
    drain_seconds: float | None = None
    """How long the platform waits for a stop, where it says so."""


def look_at_container(settings: Settings) -> ContainerFacts:
    """Read the cgroup, /dev/shm and PID 1; call it in a process that has imported the app."""
    cgroup = find_memory_cgroup()
    limit, source = None, "no cgroup"
    if cgroup is not None and cgroup.limit_bytes is not None:
        limit, source = cgroup.limit_bytes, f"cgroup v{cgroup.version} {cgroup.folder}"
    stated = settings.memory.limit_bytes
    if stated is not None and (limit is None or stated < limit):
        limit, source = stated, "the configuration"
    drain = os.environ.get(RAILWAY_DRAIN, "")
    return ContainerFacts(
        limit_bytes=limit,
        source=source,
        app_bytes=psutil.Process().memory_info().rss,
        shm_bytes=shm_size(),
        init=tuple(os.fsdecode(word) for word in read_file("/proc/1/cmdline").split(b"\0") if word),
        drain_seconds=float(drain) if drain.isdigit() else None,
    )


def shm_size() -> int:
    """Return the size of /dev/shm in bytes, 0 where there is none."""
    try:
        about = os.statvfs(SHARED_MEMORY)
    except OSError:
        return 0
    return about.f_blocks * about.f_frsize


def judge_container(facts: ContainerFacts, settings: Settings, *, imports_browser: bool) -> Iterator[Finding]:
    """Say whether the pools fit, and whether a stop reaches them."""
    yield from judge_memory(facts, settings, imports_browser=imports_browser)
    if facts.shm_bytes <= 64 * MIB:
        yield note(
            SHARED_MEMORY,
            f"{facts.shm_bytes // MIB} MiB: browser() keeps Chrome off it, plain Selenium does not",
            "--disable-dev-shm-usage, or shm_size of 1 GiB",
        )
    else:
        yield ok(SHARED_MEMORY, f"{facts.shm_bytes // MIB} MiB")
    yield from judge_init(facts)
    if facts.drain_seconds is None:
        yield note(
            "stop timeout",
            f"running tasks get {settings.grace_seconds:g} s; the platform must wait longer than that",
            f"docker stop -t, stop_grace_period, terminationGracePeriodSeconds or {RAILWAY_DRAIN}: "
            f"{settings.grace_seconds + 5:g} or more",
        )
    elif facts.drain_seconds <= settings.grace_seconds:
        yield failure(
            "stop timeout",
            f"the platform kills after {facts.drain_seconds:g} s, tasks get {settings.grace_seconds:g} s",
            f"set {RAILWAY_DRAIN} to {settings.grace_seconds + 5:g}, or RECYCLERY_GRACE below it",
        )
    else:
        yield ok("stop timeout", f"{facts.drain_seconds:g} s, of which tasks get {settings.grace_seconds:g} s")


def judge_memory(facts: ContainerFacts, settings: Settings, *, imports_browser: bool) -> Iterator[Finding]:
    """Hold the limit against the workers, and what is then left against browsers."""
    if facts.limit_bytes is None:
        yield warning(
            "memory",
            "nothing limits this container: the supervisor goes by the whole machine's memory",
            "give the container a limit, or set RECYCLERY_MEMORY_LIMIT",
        )
        return
    level = facts.limit_bytes * settings.memory.retire_percent // 100
    children = sum(pool.least for pool in settings.pools)
    held = SUPERVISION_BYTES + len(settings.pools) * facts.app_bytes + children * CHILD_BYTES
    room = max(0, level - held) // BROWSER_BYTES
    text = (
        f"{facts.limit_bytes // MIB} MiB ({facts.source}); with this app {len(settings.pools)} workers and "
        f"their {children} children hold about {held // MIB} MiB"
    )
    if held > level:
        yield failure("memory", text, "raise the limit, or run fewer pools in a container")
    elif imports_browser and room == 0:
        yield failure("memory", f"{text}: no room for a browser", "raise the limit, or run fewer pools")
    elif imports_browser:
        yield ok("memory", f"{text}; room for {room} browsers at a time (250 MiB each)")
    else:
        yield ok("memory", text)


def judge_init(facts: ContainerFacts) -> Iterator[Finding]:
    """Whether signals reach the supervisor, and orphans are reaped."""
    command = " ".join(facts.init)
    name = Path(facts.init[0]).name if facts.init else ""
    if "recyclery" in command and name not in {"sh", "bash", "dash"}:
        yield ok("PID 1", "is the supervisor")
    elif name in {"sh", "bash", "dash"}:
        yield failure(
            "PID 1",
            f"is a shell ({command[:60]}): it passes no signal on, and a stop kills running tasks",
            'ENTRYPOINT ["recyclery", "run"], or `exec recyclery run` in the script',
        )
    else:
        yield note("PID 1", f"is {name or 'unknown'}: the supervisor adopts what its own pools orphan")
