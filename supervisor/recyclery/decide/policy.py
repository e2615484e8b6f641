"""The policy: which actions to take on a snapshot. A ladder of rungs, from the cheapest to the most expensive.

| rung | functions | evidence |
|---|---|---|
| 0 reap | `reap.find_reaps`, `reap_zombies` | a process that no live task owns, a runaway browser, a zombie |
| | `reap.remove_leftover_files`, `end_sessions` | a dead browser's files, a dead child's Grid sessions |
| 1 tune | `max_tasks.tune_max_tasks` | the learned max-tasks-per-child differs from the present one |
| 2 retire | `retire.recycle_children` | a child's memory and the next task's headroom pass its budget |
| 3 pause | `pressure.pause_pools` | memory is high, and a pool's next task would pass the hard level |
| 4 replace | `retire.recycle_children` | as 2, in a worker that cannot retire single children |
| | `retire.replace_grown_main` | memory is high because a main process grew |
| | `worker_health.restart_unhealthy` | a main process hangs, or takes no message while some wait |
| | `replace.replace_requested`, `finish_rollouts` | an operator, changed settings; the successor consumes |
| 5 preempt | `pressure.preempt_largest` | memory is above the hard level |
| | `task_limit.interrupt_tasks`, `fail_task` | a task is past its own memory limit; it does not end by itself |
| beside them | `concurrency.scale_pools` | messages wait and memory allows one child more, or one less |
| | `delivery.reclaim_dead`, `report_deaths` | a worker is dead with its children; a child died during a task |
| | `worker_health.end_overdue` | a worker did not enforce a hard time limit |
| | `retire.dismiss_traced` | a child has traced allocations |
| | `warnings.find_warnings` | no recycle would help |

Each module states the thresholds, durations, settings and costs of its rung.
"""

from collections.abc import Set as AbstractSet
from dataclasses import replace

from recyclery.config.settings import Settings
from recyclery.decide.actions import Action
from recyclery.decide.concurrency import scale_pools
from recyclery.decide.delivery import reclaim_dead, report_deaths
from recyclery.decide.max_tasks import tune_max_tasks
from recyclery.decide.policy_state import PolicyState
from recyclery.decide.pressure import pause_pools, preempt_largest
from recyclery.decide.reap import end_sessions, find_reaps, reap_zombies, remove_leftover_files
from recyclery.decide.replace import finish_rollouts, plan_rollout, replace_requested
from recyclery.decide.retire import dismiss_traced, recycle_children, replace_grown_main
from recyclery.decide.task_limit import fail_task, interrupt_tasks
from recyclery.decide.warnings import find_warnings
from recyclery.decide.worker_health import end_overdue, restart_unhealthy
from recyclery.observe.snapshot import Snapshot


def decide(snapshot: Snapshot, state: PolicyState, settings: Settings) -> list[Action]:
    """Return the actions of this tick; at most one heavy action (fail, preempt, replace, retire) among them."""
    reaps = find_reaps(snapshot, state, settings)
    # The memory of processes that are about to be killed counts against nobody.
    left = after_reaping(snapshot, {process.pid for reap in reaps for process in reap.processes})
    heavy = (
        fail_task(left, state, settings)
        or preempt_largest(left, state, settings)
        or plan_rollout(restart_unhealthy(left, state, settings), left, state, settings)
        or plan_rollout(recycle_children(left, state, settings), left, state, settings)
        or plan_rollout(replace_grown_main(left, state, settings), left, state, settings)
        or plan_rollout(replace_requested(left, state, settings), left, state, settings)
    )
    return [
        *reaps,
        # Before requests to workers, which may take their time.
        *([heavy] if heavy is not None else []),
        *interrupt_tasks(left, state, settings),
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
        *(warning for warning in find_warnings(left, state, settings) if warning.topic not in state.warned),
    ]


def after_reaping(snapshot: Snapshot, pids: AbstractSet[int]) -> Snapshot:
    """Return the snapshot without these processes and their memory."""
    children = tuple(
        replace(child, processes=tuple(process for process in child.processes if process.pid not in pids))
        for child in snapshot.children
    )
    freed = sum(child.tree_bytes for child in snapshot.children) - sum(child.tree_bytes for child in children)
    container = replace(snapshot.container, floor_bytes=max(0, snapshot.container.floor_bytes - freed))
    return replace(snapshot, children=children, container=container)
