"""The container: its memory against what the pools need, its PID 1, its stop timeout, and its browser."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from recyclery.common.units import MIB, format_mib
from recyclery.config.settings import Settings
from recyclery.doctor.findings import Finding, failure, note, ok, skipped, warning
from recyclery.observe.cgroup import find_memory_cgroup
from recyclery.observe.processes import read_proc_file
from recyclery.observe.snapshot import NEARLY_USED_PERCENT, Supply
from recyclery.observe.supplies import PROCESSES, find_pids_cgroup, list_folders, read_folders, read_pids

# PSS of a session on a short page (scripts/bench browsers --part flags), and a forked child's private memory.
BROWSER_BYTES = 250 * MIB
CHILD_BYTES = 15 * MIB
SUPERVISION_BYTES = 45 * MIB
# Processes and threads of a session on a short page with its driver, and of a worker or a child.
BROWSER_THREADS = 120
WORKER_THREADS = 10
DEV_SHM = "/dev/shm"  # noqa: S108  # a name of the kernel
STOP_TIMEOUT = "stop timeout"
RAILWAY_DRAIN = "RAILWAY_DEPLOYMENT_DRAINING_SECONDS"


@dataclass(frozen=True)
class ContainerFacts:
    """Memory in bytes; the limit is None where nothing sets one."""

    limit_bytes: int | None
    source: str
    app_bytes: int
    """RSS of a process that has imported the app: this one."""
    shm_bytes: int
    init: tuple[str, ...]
    """The command line of PID 1."""
    drain_seconds: float | None = None
    """How long the platform waits for a stop, where it states that."""
    supplies: tuple[Supply, ...] = ()
    """What may run out beside memory."""


def read_container_facts(settings: Settings) -> ContainerFacts:
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
        shm_bytes=psutil.disk_usage(DEV_SHM).total if os.path.isdir(DEV_SHM) else 0,  # noqa: PTH112
        init=tuple(os.fsdecode(word) for word in read_proc_file("/proc/1/cmdline").split(b"\0") if word),
        drain_seconds=float(drain) if drain.isdigit() else None,
        supplies=(
            *read_pids(find_pids_cgroup(), ()),
            *read_folders(list_folders(settings.runtime_dir, settings.state_dir), ()),
        ),
    )


def container_findings(
    facts: ContainerFacts, settings: Settings, *, imports_browser: bool
) -> Iterator[Finding]:
    """Check that the pools fit, and that a stop reaches them."""
    yield from memory_findings(facts, settings, imports_browser=imports_browser)
    shm = f"{facts.shm_bytes // MIB} MiB"
    if facts.shm_bytes <= 64 * MIB:
        advice = "--disable-dev-shm-usage, or shm_size of 1 GiB"
        yield note(DEV_SHM, f"{shm}: browser() keeps Chrome off it, plain Selenium does not", advice)
    else:
        yield ok(DEV_SHM, shm)
    yield from supply_findings(facts, settings, imports_browser=imports_browser)
    yield from init_findings(facts)
    grace, drain = settings.grace_seconds, facts.drain_seconds
    if drain is None:
        yield note(
            STOP_TIMEOUT,
            f"running tasks get {grace:g} s; the platform must wait longer than that",
            f"docker stop -t, stop_grace_period, terminationGracePeriodSeconds or {RAILWAY_DRAIN}: "
            f"{grace + 5:g} or more",
        )
    elif drain <= grace:
        advice = f"set {RAILWAY_DRAIN} to {grace + 5:g}, or RECYCLERY_GRACE below it"
        yield failure(STOP_TIMEOUT, f"the platform kills after {drain:g} s, tasks get {grace:g} s", advice)
    else:
        yield ok(STOP_TIMEOUT, f"{drain:g} s, of which tasks get {grace:g} s")


def memory_findings(facts: ContainerFacts, settings: Settings, *, imports_browser: bool) -> Iterator[Finding]:
    """Compare the limit with what the workers hold, and the rest of it with what browsers need."""
    if facts.limit_bytes is None:
        text = "nothing limits this container: the supervisor goes by the whole machine's memory"
        yield warning("memory", text, "give the container a limit, or set RECYCLERY_MEMORY_LIMIT")
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
    elif not imports_browser:
        yield ok("memory", text)
    elif room == 0:
        yield failure("memory", f"{text}: no room for a browser", "raise the limit, or run fewer pools")
    else:
        yield ok("memory", f"{text}; room for {room} browsers at a time (250 MiB each)")


def supply_findings(facts: ContainerFacts, settings: Settings, *, imports_browser: bool) -> Iterator[Finding]:
    """Find what is nearly used up, and a limit of processes that the browsers of all children would pass."""
    children = sum(pool.most for pool in settings.pools if pool.forks)
    needed = (len(settings.pools) + children) * WORKER_THREADS + children * BROWSER_THREADS
    for supply in facts.supplies:
        amount = format_mib if supply.in_bytes else str
        used = f"{amount(supply.used)} of {amount(supply.limit)} are used ({supply.percent:.0f} %)"
        if supply.is_scarce:
            find = failure if supply.percent >= NEARLY_USED_PERCENT else warning
            text = f"{used}; tasks fail when no more are left"
            yield find(supply.name, text, "raise the limit, or remove what needs it")
        elif supply.name == PROCESSES and imports_browser and needed > supply.limit:
            text = f"{supply.limit} at most; with a browser each, {children} children need about {needed}"
            yield warning(supply.name, text, f"raise pids.max (docker run --pids-limit) to {needed} or more")
        elif supply.name == PROCESSES:
            yield ok(supply.name, used)


def init_findings(facts: ContainerFacts) -> Iterator[Finding]:
    """Check that signals reach the supervisor, and that orphans are reaped."""
    command = " ".join(facts.init)
    name = Path(facts.init[0]).name if facts.init else ""
    if name in {"sh", "bash", "dash"}:
        text = f"is a shell ({command[:60]}): it forwards no signal, and a stop kills running tasks"
        yield failure("PID 1", text, 'ENTRYPOINT ["recyclery", "run"], or `exec recyclery run` in the script')
    elif "recyclery" in command:
        yield ok("PID 1", "is the supervisor")
    else:
        yield note("PID 1", f"is {name or 'unknown'}: the supervisor adopts what its own pools orphan")


@dataclass(frozen=True)
class BrowserFacts:
    """The Chrome and the driver that would be used, or what is wrong with them."""

    used: bool
    remote: bool = False
    pair: str = ""
    missing: str = ""
    """Why there is no Chrome."""
    mismatch: str = ""
    """Why no driver fits the Chrome."""
    sandbox: bool = True


def read_browser(*, used: bool) -> BrowserFacts:
    """Find the two as `browser()` does; `used` where the app has imported it."""
    if not used:
        return BrowserFacts(used=False)
    if os.environ.get("SELENIUM_REMOTE_URL", "").strip():
        return BrowserFacts(used=True, remote=True)
    # Imported lazily: installing Selenium is up to the user, and no other command needs it.
    from recyclery_worker.browser import driver  # noqa: PLC0415

    try:
        pair = driver.find_browser()
    except driver.ChromeMissing as error:
        return BrowserFacts(used=True, missing=str(error))
    except driver.BrowserMissing as error:
        return BrowserFacts(used=True, mismatch=str(error))
    return BrowserFacts(
        used=True,
        pair=f"{pair.chrome} {pair.version} with {pair.chromedriver}",
        sandbox=driver.is_sandbox_usable(),
    )


def browser_findings(facts: BrowserFacts) -> Iterator[Finding]:
    if not facts.used:
        yield skipped("browser", "the app does not import recyclery_worker.browser")
    elif facts.remote:
        yield ok("browser", "on the Selenium Grid that SELENIUM_REMOTE_URL names")
    elif facts.missing:
        advice = "only the container of a pool that uses one needs it: install it there"
        yield warning("browser", facts.missing, advice)
    elif facts.mismatch:
        yield failure("browser", facts.mismatch, "install a driver of the same major version")
    else:
        yield ok("browser", facts.pair if facts.sandbox else f"{facts.pair}, without Chrome's sandbox")
