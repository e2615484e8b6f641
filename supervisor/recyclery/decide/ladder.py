"""The rungs, one function each, from the cheapest to the dearest; `decide` asks them all in that order.

| rung | function | acts when |
|---|---|---|
| 0 reap | `reap_orphans`, `reap_leftovers`, `collect_defunct` | something runs that no live task owns |
| 2 retire | `renew_children` | a child's tree and the next task's tail would pass its budget |
| 4 replace | `renew_children` | the same, where the worker cannot let single children go |
| 5 preempt | `preempt_largest` | the floor is above the hard level |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from recyclery.config.settings import Pool, Settings
from recyclery.decide.actions import Action, Collect, Preempt, Reap, Replace, Retire
from recyclery.decide.model import PoolModel
from recyclery.observe.ownership import browser_groups
from recyclery.observe.snapshot import TICK_SECONDS, Child, Owner, Process, Snapshot

MIB = 1 << 20
# A recycle that frees less than this is not worth a fork.
LEAST_GAIN_BYTES = 16 * MIB
RETIRE_AGAIN_SECONDS = 10.0
REPLACE_AGAIN_SECONDS = 60.0
PREEMPT_AGAIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What earlier ticks leave to this one: what was learned, and what was asked for and when."""

    models: Mapping[str, PoolModel] = field(default_factory=dict)
    retired: Mapping[Owner, float] = field(default_factory=dict)
    replaced: Mapping[str, float] = field(default_factory=dict)
    preempted: float | None = None


def decide(snapshot: Snapshot, memory: Memory, settings: Settings) -> list[Action]:
    """Return what to do now; at most one heavy action (retire, replace, preempt) at a time."""
    reaps = [*reap_orphans(snapshot), *reap_leftovers(snapshot, settings)]
    actions: list[Action] = [*reaps, *collect_defunct(snapshot)]
    # What is about to be reaped costs no child its place.
    left = without(snapshot, {process.pid for reap in reaps for process in reap.processes})
    heavy = preempt_largest(left, memory, settings) or renew_children(left, memory, settings)
    return [*actions, heavy] if heavy is not None else actions


def without(snapshot: Snapshot, pids: AbstractSet[int]) -> Snapshot:
    """Return the snapshot as it will be when these processes are gone."""
    children = tuple(
        replace(child, processes=tuple(process for process in child.processes if process.pid not in pids))
        for child in snapshot.children
    )
    freed = sum(child.tree_bytes for child in snapshot.children) - sum(child.tree_bytes for child in children)
    container = replace(snapshot.container, floor_bytes=max(0, snapshot.container.floor_bytes - freed))
    return replace(snapshot, children=children, container=container)


def reap_orphans(snapshot: Snapshot) -> Iterator[Reap]:
    """What a dead child left: all of its session, and browsers that left the session."""
    for orphans in snapshot.orphans:
        doomed = tuple(
            process
            for process in orphans.processes
            if not process.is_defunct and (process.session == orphans.owner.pid or process.is_browser)
        )
        if doomed:
            yield Reap(
                kind="orphans",
                owner=orphans.owner,
                processes=doomed,
                reason=f"their pool child {orphans.owner.pid} is dead",
            )


def reap_leftovers(snapshot: Snapshot, settings: Settings) -> Iterator[Reap]:
    """Browsers that a finished task started and a living child still has.

    A child runs one task at a time, so a browser begun between the start of its first task and the end of its
    last finished one belongs to a task that is over. One older than all tasks is the child's own.
    """
    willing = {pool.name for pool in settings.pools if pool.reap_leftover_browsers}
    for child in snapshot.children:
        ended, first = child.last_task_ended, child.first_task_started
        if child.owner.pool not in willing or ended is None or first is None:
            continue
        doomed: list[Process] = []
        for browser in browser_groups(child.processes, child.owner.pid):
            # Starts are told in whole clock ticks: one tick's doubt goes to the browser on either side.
            began = browser[0].started + TICK_SECONDS
            if first <= began <= ended:
                doomed += [process for process in browser if not process.is_defunct]
        if doomed:
            yield Reap(
                kind="leftovers",
                owner=child.owner,
                processes=tuple(doomed),
                reason=f"the last task that can have started them ended {snapshot.at - ended:.1f} s ago",
            )


def collect_defunct(snapshot: Snapshot) -> Iterator[Collect]:
    """Children with ended browsers that only they, the parent, can collect."""
    for child in snapshot.children:
        defunct = sum(
            process.is_defunct and process.is_browser and process.parent == child.owner.pid
            for process in child.processes
        )
        if defunct:
            yield Collect(owner=child.owner, reason=f"{defunct} ended browser processes wait for their parent")


def renew_children(snapshot: Snapshot, memory: Memory, settings: Settings) -> Retire | Replace | None:
    """The child that the next task would take furthest past its budget: let go, or its worker replaced."""
    pools = {pool.name: pool for pool in settings.pools}
    views = {view.name: view for view in snapshot.pools}
    past: list[tuple[int, Retire | Replace]] = []
    for child in snapshot.children:
        pool = pools.get(child.owner.pool)
        found = past_budget(child, snapshot, memory, settings, pool) if pool is not None else None
        if found is None:
            continue
        excess, reason = found
        view = views.get(child.owner.pool)
        if view is None or view.retires:
            if not is_recent(memory.retired.get(child.owner), snapshot.at, RETIRE_AGAIN_SECONDS):
                past.append((excess, Retire(owner=child.owner, reason=reason)))
        elif view.state == "running" and not is_recent(
            memory.replaced.get(view.name), snapshot.at, REPLACE_AGAIN_SECONDS
        ):
            past.append((excess, Replace(pool=view.name, reason=f"child {child.owner.pid}: {reason}")))
    return max(past, key=lambda pair: pair[0])[1] if past else None


def past_budget(
    child: Child, snapshot: Snapshot, memory: Memory, settings: Settings, pool: Pool
) -> tuple[int, str] | None:
    """Return by how many bytes the next task would take a child past its budget, and the reason in words."""
    model = memory.models.get(pool.name)
    if model is None or model.baseline_bytes is None:
        return None
    # A running task's own memory is not what a recycle frees: judge by what stays, before it or after.
    if child.task_id is not None or (pool.forks and child.tasks_done == 0):
        return None
    budget = child_budget(snapshot, settings, pool)
    excess = child.tree_bytes + model.tail_bytes - budget
    if excess <= 0 or child.tree_bytes - model.baseline_bytes < LEAST_GAIN_BYTES:
        return None
    return excess, (
        f"{mib(child.tree_bytes)} now + {mib(model.tail_bytes)} for the next task "
        f"pass its budget of {mib(budget)}; after {child.tasks_done} tasks"
    )


def is_recent(then: float | None, at: float, seconds: float) -> bool:
    """Tell whether something was done less than `seconds` ago."""
    return then is not None and at - then < seconds


def child_budget(snapshot: Snapshot, settings: Settings, pool: Pool) -> int:
    """What one child of the pool may hold: the retire level, less all that is not this pool's, shared out."""
    level = snapshot.container.limit_bytes * settings.memory.retire_percent // 100
    held = sum(child.tree_bytes for child in snapshot.children if child.owner.pool == pool.name)
    others = max(0, snapshot.container.floor_bytes - held)
    return max(0, level - others) // (pool.concurrency if pool.forks else 1)


def preempt_largest(snapshot: Snapshot, memory: Memory, settings: Settings) -> Preempt | None:
    """The child to kill now, with all it started, so that the kernel need not choose."""
    container = snapshot.container
    hard_bytes = container.limit_bytes * settings.memory.hard_percent // 100
    if container.floor_bytes < hard_bytes or not snapshot.children:
        return None
    if is_recent(memory.preempted, snapshot.at, PREEMPT_AGAIN_SECONDS):
        return None
    largest: Child = max(snapshot.children, key=lambda child: child.tree_bytes)
    model = memory.models.get(largest.owner.pool, PoolModel())
    if largest.tree_bytes - (model.baseline_bytes or 0) < LEAST_GAIN_BYTES:
        # Whatever fills the memory, it is not what our children hold.
        return None
    return Preempt(
        owner=largest.owner,
        processes=tuple(process for process in largest.processes if not process.is_defunct),
        reason=(
            f"{mib(container.floor_bytes)} cannot be reclaimed, above {settings.memory.hard_percent} % "
            f"of {mib(container.limit_bytes)}; this child holds the most, {mib(largest.tree_bytes)}"
        ),
    )


def mib(size_bytes: int) -> str:
    """Say a size for people."""
    return f"{size_bytes / MIB:.0f} MiB"
