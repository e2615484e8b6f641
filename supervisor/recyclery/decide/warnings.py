"""Warnings for conditions that no recycle can fix: where the memory is, and what an operator can do.

tight: fresh children with the largest tasks seen in KNOWN_RUNS runs would pass `hard_percent`.
strangers: browsers that no pool started, once for each.
unattributed: memory is above `retire_percent`, and UNWATCHED_PERCENT of the limit belong to no watched process.

scarce: processes, open files, or a folder's room or inodes are nearly used up (`Supply.is_scarce`); again at
    NEARLY_USED_PERCENT.
unlimited: a worker that cannot end single tasks has a `max_task_bytes`.

Each is logged once while it lasts, then again every `policy_state.WARN_AGAIN_SECONDS`.
"""

from collections.abc import Iterator

from recyclery.common.units import format_mib
from recyclery.config.settings import Settings
from recyclery.decide.actions import Warn
from recyclery.decide.memory_levels import (
    active_children,
    concurrency_of,
    format_count,
    is_leaving,
    level_bytes,
)
from recyclery.decide.memory_model import PoolModel
from recyclery.decide.policy_state import PolicyState
from recyclery.decide.task_limit import warn_of_unlimited_tasks
from recyclery.observe.ownership import running_browsers
from recyclery.observe.snapshot import NEARLY_USED_PERCENT, Snapshot, Supply

UNWATCHED_PERCENT = 15
KNOWN_RUNS = 10


def find_warnings(snapshot: Snapshot, state: PolicyState, settings: Settings) -> Iterator[Warn]:
    """Yield all warnings whose condition holds now."""
    yield from warn_of_tightness(snapshot, state, settings)
    yield from warn_of_foreign_browsers(snapshot, state)
    yield from warn_of_unlimited_tasks(snapshot, settings)
    yield from warn_of_scarcity(snapshot)
    if snapshot.container.floor_bytes >= level_bytes(snapshot, settings.memory.retire_percent):
        yield from warn_of_unwatched_memory(snapshot)


def warn_of_foreign_browsers(snapshot: Snapshot, state: PolicyState) -> Iterator[Warn]:
    """Warn of browsers that no pool started and that were not there in the last snapshot."""
    new = [
        browser[0]
        for browser in running_browsers(snapshot.foreign_browsers, 0)
        if not any(process.key in state.known_foreign for process in browser)
    ]
    if new:
        names = ", ".join(f"{process.name} {process.pid}" for process in new)
        text = (
            f"{format_count(len(new), 'browser')} that no pool started: {names}; left alone, "
            "`recyclery reap --strangers` kills"
        )
        yield Warn("strangers", text)


def warn_of_scarcity(snapshot: Snapshot) -> Iterator[Warn]:
    """Warn of what is nearly used up beside memory."""
    for supply in snapshot.supplies:
        if supply.is_scarce:
            level = "nearly used" if supply.percent >= NEARLY_USED_PERCENT else "scarce"
            yield Warn(f"{level}/{supply.name}", describe_supply(supply))


def describe_supply(supply: Supply) -> str:
    """Return how much of a supply is used, by whom, and what follows where it is used up."""
    amount = format_mib if supply.in_bytes else str
    most = f", most by {supply.holder} ({amount(supply.held)})" if supply.holder else ""
    return (
        f"{supply.name}: {amount(supply.used)} of {amount(supply.limit)} are used "
        f"({supply.percent:.0f} %){most}; tasks fail when no more are left"
    )


def warn_of_tightness(snapshot: Snapshot, state: PolicyState, settings: Settings) -> Iterator[Warn]:
    """Warn where fresh children with the largest tasks seen do not fit."""
    costs = {}
    needed = snapshot.container.floor_bytes
    for pool in settings.pools:
        model = state.models.get(pool.name, PoolModel())
        if len(model.tails) < KNOWN_RUNS:
            continue
        concurrency = concurrency_of(snapshot, pool)
        tail = min(max(model.tails), pool.most_task_bytes or max(model.tails))
        peak = state.fresh_child_bytes(pool.name) + tail
        staying = [child for child in active_children(snapshot, pool.name) if not is_leaving(child, snapshot)]
        needed += sum(peak - child.tree_bytes for child in staying[:concurrency])
        costs[pool.name] = concurrency, f"{pool.name} {concurrency} x {format_mib(peak)}"
    hard_percent = settings.memory.hard_percent
    hard = level_bytes(snapshot, hard_percent)
    if needed <= hard or not costs:
        return
    several = [name for name, (concurrency, _) in costs.items() if concurrency > 1]
    advice = f", or lower the concurrency of {' or '.join(several)}" if several else ""
    listed = ", ".join(cost for _, cost in costs.values())
    yield Warn(
        "tight",
        f"fresh children with the largest tasks seen ({listed}) would take {format_mib(needed)} in all, "
        f"past {format_mib(hard)}, {hard_percent} % of the limit: no recycle helps. "
        f"Raise the memory limit to {format_mib(needed * 100 // hard_percent)}{advice}",
    )


def warn_of_unwatched_memory(snapshot: Snapshot) -> Iterator[Warn]:
    """Warn of unreclaimable memory that neither children nor main processes hold."""
    unwatched = snapshot.unattributed_bytes
    if unwatched < level_bytes(snapshot, UNWATCHED_PERCENT):
        return
    shm = min(snapshot.shm_files_bytes, unwatched)
    files = f", {format_mib(shm)} of them files in /dev/shm" if shm else ""
    yield Warn(
        "unattributed",
        f"{format_mib(unwatched)} of the {format_mib(snapshot.container.floor_bytes)} that cannot be reclaimed "
        f"belong to no process that is watched{files}: look for files on a tmpfs, and for processes that no "
        "pool started",
    )
