"""How long a child may live: the rule after every task, and the number of tasks it is given beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

from recyclery.common.pool_state import PoolState
from recyclery.common.statistics import NORMAL, chi_square_quantile, deviation, t_quantile
from recyclery.config.settings import Pool, Settings
from recyclery.decide.actions import ChangeMaxTasks
from recyclery.decide.budget import find_view, mib, pool_budget
from recyclery.decide.memory_model import RISK, PoolModel, Step, tail_bytes
from recyclery.decide.policy_state import PolicyState
from recyclery.observe.snapshot import Snapshot

# A recycle that frees less than this is not worth a fork.
MIN_RECLAIMABLE_BYTES = 16 << 20
# Growth below this, per task, is no leak: idle trees wander that much.
LEAST_LEAK_BYTES = (1 << 20) // 5
# Fewer steps say nothing about growth.
MIN_GROWTH_STEPS = 5
# Where `must_retire` is asked after every task, N need only bound what happens while nobody asks.
BACKSTOP_RISK = 0.9
# The share of estimates that may err to the wrong side: of growth, of its spread.
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
    """Return by how many bytes the next task may take an idle child past its budget; None where it may stay.

    `next_bytes` is what that task may need on top of the child's tree (`tail_bytes`). A child hardly above a
    fresh one stays: its successor would be no better off.
    """
    fresh_bytes = model.fresh_child_bytes
    if fresh_bytes is None or tree_bytes - fresh_bytes < least_gain_bytes:
        return None
    excess = tree_bytes + next_bytes - budget_bytes
    return excess if excess > 0 else None


def choose_max_tasks(model: PoolModel, budget_bytes: int, most: int, risk: float = RISK) -> int:
    """Return the tasks a child can run within its budget, 1 to `most`, without anybody looking between them.

    `most` where nothing is known or growth is not surely above what idle trees change by anyway. `risk` is the
    chance that a life of so many tasks passes all the same. After n tasks the tree is taken to stay below
    `start + growth * n + z * spread * sqrt(n)`: a line through the second half of the lives seen, its growth
    and spread at the upper end of what the steps allow; solved for n, a quadratic equation in its root.
    """
    late = late_steps(model.steps)
    low, mean, growth = mean_growth(late)
    if low <= LEAST_LEAK_BYTES:
        return most
    freedom = len(late) - 1
    spread = deviation([step.growth_bytes for step in late], mean)
    spread *= math.sqrt(freedom / chi_square_quantile(DOUBT, freedom))
    # Where the line meets the first task: above a fresh child after a warm-up, below it where growth grows.
    start = fmean(step.after_bytes - mean * (step.tasks_before + 1) for step in late)
    # Where not even a fresh child has room to grow, it runs until a recycle frees something worth a fork.
    headroom = max(MIN_RECLAIMABLE_BYTES, budget_bytes - tail_bytes(model, risk) - start)
    away = NORMAL.inv_cdf(1 - risk) * spread
    root = (math.sqrt(away**2 + 4 * growth * headroom) - away) / (2 * growth)
    return max(1, min(most, int(root**2)))


def late_steps(steps: Sequence[Step]) -> list[Step]:
    """Return the steps of the second half of a long life, one that nine tenths of the steps do not pass.

    The first half may be warm-up; where growth itself grows, the second half is the better guide to what comes.
    """
    places = sorted(step.tasks_before for step in steps)
    half = (places[len(places) * 9 // 10] + 1) // 2 if places else 0
    return [step for step in steps if step.tasks_before >= half]


def mean_growth(steps: Sequence[Step]) -> tuple[float, float, float]:
    """Return low, middle and high of the bytes that a task leaves, by Student's t; boundless if few."""
    if len(steps) < MIN_GROWTH_STEPS:
        return -math.inf, 0.0, math.inf
    growths = [step.growth_bytes for step in steps]
    mean = fmean(growths)
    away = t_quantile(1 - DOUBT, len(growths) - 1) * deviation(growths, mean) / math.sqrt(len(growths))
    return mean - away, mean, mean + away


def adjust_max_tasks(current: int, clean_lifetimes: int, wanted: int) -> int:
    """Return the next number of tasks per child: down to `wanted` at once, up by a tenth and only when proven.

    `clean_lifetimes` is how many children in a row ran `current` tasks within their budget, counted afresh
    after each change. Nothing is raised for less than the deadband.
    """
    if wanted < current:
        return wanted
    if clean_lifetimes < CLEAN_LIFETIMES or wanted <= current * (1 + DEADBAND):
        return current
    return min(wanted, current + max(1, int(current * RAISE)))


def tune_max_tasks(snapshot: Snapshot, state: PolicyState, settings: Settings) -> Iterator[ChangeMaxTasks]:
    """The pools whose limit is to change: to the number learned, never above the one in the settings.

    The governor looks after every task, so the limit need only hold while nobody looks (`BACKSTOP_RISK`).
    """
    for pool in settings.pools:
        view = find_view(snapshot, pool.name)
        if (
            view is None
            or not view.retires
            or view.state is not PoolState.RUNNING
            or view.max_tasks_per_child is None
        ):
            continue
        tune = tune_pool(pool, view.max_tasks_per_child, snapshot, state, settings)
        if tune is not None:
            yield tune


def tune_pool(
    pool: Pool, current: int, snapshot: Snapshot, state: PolicyState, settings: Settings
) -> ChangeMaxTasks | None:
    """Return the change of one pool's limit, if there is to be one."""
    most = pool.max_tasks_per_child
    model = state.models.get(pool.name)
    if current > most or (current < most and model is None):
        return ChangeMaxTasks(pool=pool.name, max_tasks=most, reason=f"the settings say {most}")
    if model is None:
        return None
    budget = pool_budget(pool, snapshot, state, settings)
    wanted = choose_max_tasks(model, budget, most, BACKSTOP_RISK)
    if wanted > current * (1 - DEADBAND) and wanted <= current:
        # The budget goes up and down with what the other pools do: that alone is no reason.
        return None
    if pool.name in state.changed:
        # A new number in the settings is taken at once, as far as what was learned allows.
        chosen = wanted
    else:
        chosen = adjust_max_tasks(current, state.clean_lifetimes.get(pool.name, 0), wanted)
    if chosen == current:
        return None
    reason = f"{wanted} such tasks fit the {mib(budget)} that a child may hold, the largest one on top"
    return ChangeMaxTasks(pool=pool.name, max_tasks=chosen, reason=reason)
