"""The rungs in one place, from the cheapest to the dearest, with what goes beside them.

| rung | function | acts when |
|---|---|---|
| 0 reap | `find_reaps`, `reap_zombies` | something runs that no live task owns, or a task hangs at |
| | `remove_leftover_files`, `end_sessions` | a browser that is gone left folders, or runs elsewhere |
| 1 tune | `tune_max_tasks` | the learned number of tasks per child is another than the one in force |
| 2 retire | `recycle_children` | a child's tree and the next task's tail would pass its budget |
| 3 hold | `pause_pools` | near the limit, the next task of a pool would pass the hard level |
| 4 replace | `recycle_children` | as 2, where the worker cannot let single children go |
| | `replace_grown_main` | memory is short because a worker's main process grew |
| | `replace_requested` | a person asked for it, or the worker's settings have changed |
| | `finish_rollouts` | a successor takes tasks: the old worker leaves; or does not come to: it is given up |
| | `restart_unhealthy` | a worker's main process hangs, or it takes nothing while tasks wait |
| 5 preempt | `preempt_largest` | the floor is above the hard level |
| | `scale_pools` | a pool with a range of concurrency has work and memory for one more, or not |
| | `reclaim_dead` | a worker is dead with all its children: what it held goes back to its queues |
| | `report_deaths` | a child died with a task in hand: what was seen of it goes into the task's history |
| | `end_overdue` | a worker forgot to end a task that is past its hard time limit |
| | `dismiss_traced` | a child has traced allocations for a person |
| | `find_warnings` | no recycle would help |
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace

from recyclery.config.settings import Settings
from recyclery.decide.actions import Action
from recyclery.decide.concurrency import scale_pools
from recyclery.decide.delivery import reclaim_dead, report_deaths
from recyclery.decide.handoff import finish_rollouts, plan_rollout, replace_requested
from recyclery.decide.max_tasks import tune_max_tasks
from recyclery.decide.policy_state import PolicyState
from recyclery.decide.pressure import pause_pools, preempt_largest
from recyclery.decide.reap import end_sessions, find_reaps, reap_zombies, remove_leftover_files
from recyclery.decide.recycle import dismiss_traced, recycle_children, replace_grown_main
from recyclery.decide.warnings import find_warnings
from recyclery.decide.worker_health import end_overdue, restart_unhealthy
from recyclery.observe.snapshot import Snapshot


def decide(snapshot: Snapshot, state: PolicyState, settings: Settings) -> list[Action]:
    """Return what to do now; at most one heavy action (retire, replace, preempt) at a time."""
    reaps = find_reaps(snapshot, state, settings)
    # What is about to be reaped costs no child its place.
    left = after_reaping(snapshot, {process.pid for reap in reaps for process in reap.processes})
    heavy = (
        preempt_largest(left, state, settings)
        or plan_rollout(restart_unhealthy(left, state, settings), left, state, settings)
        or plan_rollout(recycle_children(left, state, settings), left, state, settings)
        or plan_rollout(replace_grown_main(left, state, settings), left, state, settings)
        or plan_rollout(replace_requested(left, state, settings), left, state, settings)
    )
    return [
        *reaps,
        # Before all that has to be asked of workers, which may take their time.
        *([heavy] if heavy is not None else []),
        *finish_rollouts(left, state, settings),
        *remove_leftover_files(snapshot),
        *end_sessions(snapshot),
        *reap_zombies(snapshot),
        *reclaim_dead(snapshot, state),
        *report_deaths(snapshot, state.child_deaths),
        *end_overdue(snapshot, state),
        *dismiss_traced(snapshot, state),
        *pause_pools(left, state, settings),
        *tune_max_tasks(left, state, settings),
        *scale_pools(left, state, settings),
        *(notice for notice in find_warnings(left, state, settings) if notice.topic not in state.warned),
    ]


def after_reaping(snapshot: Snapshot, pids: AbstractSet[int]) -> Snapshot:
    """Return the snapshot as it will be when these processes are gone."""
    children = tuple(
        replace(child, processes=tuple(process for process in child.processes if process.pid not in pids))
        for child in snapshot.children
    )
    freed = sum(child.tree_bytes for child in snapshot.children) - sum(child.tree_bytes for child in children)
    container = replace(snapshot.container, floor_bytes=max(0, snapshot.container.floor_bytes - freed))
    return replace(snapshot, children=children, container=container)
