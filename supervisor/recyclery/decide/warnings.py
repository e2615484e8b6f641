"""What no recycle can help is not done but said: it names where the memory is and what a person can do."""

from __future__ import annotations

from collections.abc import Iterator

from recyclery.config.settings import Settings
from recyclery.decide.actions import Warn
from recyclery.decide.budget import active_children, concurrency_of, format_count, is_leaving, level_bytes, mib
from recyclery.decide.memory_model import PoolModel
from recyclery.decide.policy_state import PolicyState
from recyclery.observe.ownership import running_browsers
from recyclery.observe.snapshot import Snapshot

# Memory that belongs to no pool is worth a word from this share of the limit on.
UNATTRIBUTED_PERCENT = 15
# What a pool needs is not told from fewer runs.
KNOWN_RUNS = 10


def find_warnings(snapshot: Snapshot, state: PolicyState, settings: Settings) -> Iterator[Warn]:
    """Everything that is to be said now; the same thing is the same `kind`."""
    yield from find_tightness(snapshot, state, settings)
    yield from find_strangers(snapshot, state)
    if snapshot.container.floor_bytes >= level_bytes(snapshot, settings.memory.retire_percent):
        yield from find_unattributed(snapshot)


def find_strangers(snapshot: Snapshot, state: PolicyState) -> Iterator[Warn]:
    """Browsers that no pool started and that were not there before."""
    news = [
        browser[0]
        for browser in running_browsers(snapshot.foreign_browsers, 0)
        if not any(process.key in state.known_foreign for process in browser)
    ]
    if news:
        named = ", ".join(f"{process.name} {process.pid}" for process in news)
        yield Warn(
            topic="strangers",
            text=(
                f"{format_count(len(news), 'browser')} that no pool started: {named}; left alone, "
                "`recyclery reap --strangers` kills"
            ),
        )


def find_tightness(snapshot: Snapshot, state: PolicyState, settings: Settings) -> Iterator[Warn]:
    """Pools that do not fit with fresh children and the tasks that were seen: no recycling helps them."""
    costs = {}
    needed = snapshot.container.floor_bytes
    for pool in settings.pools:
        model = state.models.get(pool.name, PoolModel())
        if len(model.tails) < KNOWN_RUNS:
            continue
        fresh, largest = int(model.fresh_child_bytes or 0), max(model.tails)
        staying = [child for child in active_children(snapshot, pool.name) if not is_leaving(child, snapshot)]
        needed += sum(fresh + largest - child.tree_bytes for child in staying[: concurrency_of(snapshot, pool)])
        costs[pool] = f"{pool.name} {concurrency_of(snapshot, pool)} x {mib(fresh + largest)}"
    hard = level_bytes(snapshot, settings.memory.hard_percent)
    if needed <= hard or not costs:
        return
    several = [pool.name for pool in costs if concurrency_of(snapshot, pool) > 1]
    advice = f", or lower the concurrency of {' or '.join(several)}" if several else ""
    limit = needed * 100 // settings.memory.hard_percent
    yield Warn(
        topic="tight",
        text=(
            f"fresh children with the largest tasks seen ({', '.join(costs.values())}) would take "
            f"{mib(needed)} in all, past {mib(hard)}, {settings.memory.hard_percent} % of the limit: "
            f"no recycle helps. Raise the memory limit to {mib(limit)}{advice}"
        ),
    )


def find_unattributed(snapshot: Snapshot) -> Iterator[Warn]:
    """Memory of the container that no child holds, by where it is."""
    container = snapshot.container
    children = sum(child.tree_bytes for child in snapshot.children)
    # A main process that runs the tasks itself is among the children.
    alone = {child.owner.pid for child in snapshot.children}
    mains = sum(view.main_bytes for view in snapshot.workers if view.pid not in alone)
    left = container.floor_bytes - children - mains
    if left < level_bytes(snapshot, UNATTRIBUTED_PERCENT):
        return
    shm = min(snapshot.shm_files_bytes, left)
    yield Warn(
        topic="unattributed",
        text=(
            f"{mib(left)} of the {mib(container.floor_bytes)} that cannot be reclaimed belong to no pool"
            f"{f', {mib(shm)} of them files in /dev/shm' if shm else ''}: no recycle frees them"
        ),
    )
