"""Rung 1: max-tasks-per-child follows what has been learned."""

from __future__ import annotations

from collections.abc import Iterator

from recyclery.config.settings import Pool, Settings
from recyclery.decide.actions import Tune
from recyclery.decide.budget import find_view, mib, pool_budget
from recyclery.decide.limits import BACKSTOP_RISK, DEADBAND, adjust_max_tasks, choose_max_tasks
from recyclery.decide.policy_state import Past
from recyclery.observe.snapshot import Snapshot


def tune_limits(snapshot: Snapshot, past: Past, settings: Settings) -> Iterator[Tune]:
    """The pools whose limit is to change: to the number learned, never above the one in the settings.

    The governor looks after every task, so the limit need only hold while nobody looks (`BACKSTOP_RISK`).
    """
    for pool in settings.pools:
        view = find_view(snapshot, pool.name)
        if view is None or not view.retires or view.state != "running" or view.max_tasks_per_child is None:
            continue
        tune = tune_limit(pool, view.max_tasks_per_child, snapshot, past, settings)
        if tune is not None:
            yield tune


def tune_limit(pool: Pool, current: int, snapshot: Snapshot, past: Past, settings: Settings) -> Tune | None:
    """Return the change of one pool's limit, if there is to be one."""
    most = pool.max_tasks_per_child
    model = past.models.get(pool.name)
    if current > most or (current < most and model is None):
        return Tune(pool=pool.name, max_tasks=most, reason=f"the settings say {most}")
    if model is None:
        return None
    budget = pool_budget(pool, snapshot, past, settings)
    wanted = choose_max_tasks(model, budget, most, BACKSTOP_RISK)
    if wanted > current * (1 - DEADBAND) and wanted <= current:
        # The budget goes up and down with what the other pools do: that alone is no reason.
        return None
    if pool.name in past.changed:
        # A new number in the settings is taken at once, as far as what was learned allows.
        chosen = wanted
    else:
        chosen = adjust_max_tasks(current, past.clean_lifetimes.get(pool.name, 0), wanted)
    if chosen == current:
        return None
    reason = f"{wanted} such tasks fit the {mib(budget)} that a child may hold, the largest one on top"
    return Tune(pool=pool.name, max_tasks=chosen, reason=reason)
