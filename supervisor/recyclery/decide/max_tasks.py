"""Rung 1: how many tasks a child may run (max-tasks-per-child), learned from the growth its tasks leave.

ChangeMaxTasks: down at once to the number whose projected memory fits the child's budget; up by RAISE (a tenth)
    after CLEAN_LIFETIMES children in a row reached the present number with no action of the governor. Changes
    up are ignored within DEADBAND, and so are smaller changes down: the budget varies with the other pools.
    Costs nothing; children exit after other numbers of tasks.

Never above the setting `max_tasks_per_child`. `must_retire` is the rule of rung 2, asked after every task.
"""

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

from recyclery.common.pool_state import PoolState
from recyclery.common.statistics import NORMAL, chi_square_quantile, deviation, t_quantile
from recyclery.common.units import format_mib
from recyclery.config.settings import Pool, Settings
from recyclery.decide.actions import ChangeMaxTasks
from recyclery.decide.memory_levels import active_workers, pool_budget
from recyclery.decide.memory_model import RISK, GrowthStep, PoolModel, headroom_bytes
from recyclery.decide.policy_state import PolicyState
from recyclery.observe.snapshot import Snapshot

# A recycle that frees less is not worth a fork.
MIN_RECLAIMABLE_BYTES = 16 << 20
# Growth per task below this is no leak: the memory of idle children varies by as much.
MIN_LEAK_BYTES = (1 << 20) // 5
# Fewer steps do not allow an estimate of growth.
MIN_GROWTH_STEPS = 5
# The accepted chance that a child passes its budget by its last task. It is high because `must_retire` is asked
# after every task: the number only has to hold while the governor is away.
BACKSTOP_RISK = 0.9
# One-sided significance level of the estimates of growth and of its spread.
DOUBT = 0.05

CLEAN_LIFETIMES = 2
RAISE = 0.10
DEADBAND = 0.15


def must_retire(
    model: PoolModel,
    tree_bytes: int,
    budget_bytes: int,
    next_bytes: int,
    least_gain_bytes: int = MIN_RECLAIMABLE_BYTES,
) -> int | None:
    """Return by how much the next task may take an idle child past its budget; None where it may stay.

    `next_bytes` is the headroom of that task. A child hardly larger than a fresh one stays: its replacement
    would be as large.
    """
    fresh_bytes = model.fresh_child_bytes
    if fresh_bytes is None or tree_bytes - fresh_bytes < least_gain_bytes:
        return None
    excess = tree_bytes + next_bytes - budget_bytes
    return excess if excess > 0 else None


def choose_max_tasks(model: PoolModel, budget_bytes: int, most: int, risk: float = RISK) -> int:
    """Return the number of tasks after which a child is still within its budget, 1 to `most`.

    `most` where growth is not significantly above LEAST_LEAK_BYTES, or too little is known. `risk` is the
    chance that a child passes its budget all the same. After n tasks its memory is taken to stay below
    `start + growth * n + z * spread * sqrt(n)`: a line through the second half of the observed lives, with
    growth and spread at their upper confidence bounds. Solved for n, a quadratic equation in sqrt(n).
    """
    late = late_steps(model.steps)
    low, mean, growth = mean_growth(late)
    if low <= MIN_LEAK_BYTES:
        return most
    freedom = len(late) - 1
    spread = deviation([step.growth_bytes for step in late], mean)
    spread *= math.sqrt(freedom / chi_square_quantile(DOUBT, freedom))
    # The line's value before the first task: above a fresh child after a warm-up, below it if growth rises.
    start = fmean(step.after_bytes - mean * (step.tasks_before + 1) for step in late)
    # A child without room to grow still runs until its recycle is worth a fork.
    headroom = max(MIN_RECLAIMABLE_BYTES, budget_bytes - headroom_bytes(model, risk) - start)
    away = NORMAL.inv_cdf(1 - risk) * spread
    root = (math.sqrt(away**2 + 4 * growth * headroom) - away) / (2 * growth)
    return max(1, min(most, int(root**2)))


def late_steps(steps: Sequence[GrowthStep]) -> list[GrowthStep]:
    """Return the steps of the second half of a long life (the 90 % quantile of their positions).

    The first half may be warm-up, and accelerating growth shows in the second half.
    """
    places = sorted(step.tasks_before for step in steps)
    half = (places[len(places) * 9 // 10] + 1) // 2 if places else 0
    return [step for step in steps if step.tasks_before >= half]


def mean_growth(steps: Sequence[GrowthStep]) -> tuple[float, float, float]:
    """Return the mean growth per task with its confidence bounds (low, mean, high); infinite bounds if few."""
    if len(steps) < MIN_GROWTH_STEPS:
        return -math.inf, 0.0, math.inf
    growths = [step.growth_bytes for step in steps]
    mean = fmean(growths)
    away = t_quantile(1 - DOUBT, len(growths) - 1) * deviation(growths, mean) / math.sqrt(len(growths))
    return mean - away, mean, mean + away


def adjust_max_tasks(current: int, clean_lifetimes: int, wanted: int) -> int:
    """Return the next number of tasks per child: down to `wanted` at once, up by RAISE and only when proven.

    `clean_lifetimes` counts children in a row that ran `current` tasks within their budget.
    """
    if wanted < current:
        return wanted
    if clean_lifetimes < CLEAN_LIFETIMES or wanted <= current * (1 + DEADBAND):
        return current
    return min(wanted, current + max(1, int(current * RAISE)))


def tune_max_tasks(snapshot: Snapshot, state: PolicyState, settings: Settings) -> Iterator[ChangeMaxTasks]:
    """Yield the changes of max-tasks-per-child."""
    for pool, view in active_workers(snapshot, settings):
        current = view.max_tasks_per_child
        if view.retires and view.state is PoolState.RUNNING and current is not None:
            tune = tune_pool(pool, current, snapshot, state, settings)
            if tune is not None:
                yield tune


def tune_pool(
    pool: Pool, current: int, snapshot: Snapshot, state: PolicyState, settings: Settings
) -> ChangeMaxTasks | None:
    """Return the change of one pool's max-tasks-per-child; None where it stays."""
    most = pool.max_tasks_per_child
    model = state.models.get(pool.name)
    if current > most or (current < most and model is None):
        return ChangeMaxTasks(pool=pool.name, max_tasks=most, reason=f"the settings say {most}")
    if model is None:
        return None
    budget = pool_budget(pool, snapshot, state, settings)
    wanted = choose_max_tasks(model, budget, most, BACKSTOP_RISK)
    if wanted > current * (1 - DEADBAND) and wanted <= current:
        return None
    chosen = adjust_max_tasks(current, state.clean_lifetimes.get(pool.name, 0), wanted)
    if pool.name in state.changed:
        # A new number in the settings applies at once, as far as the model allows.
        chosen = wanted
    if chosen == current:
        return None
    reason = f"{wanted} such tasks fit the {format_mib(budget)} that a child may hold, the largest one on top"
    return ChangeMaxTasks(pool=pool.name, max_tasks=chosen, reason=reason)
