"""policy_sim: simulated child lifetimes against the memory model: who passes the budget, who goes too early.

Every pool starts knowing nothing and lives `POOL_LIFETIMES` children in turn, learning from each task's
figures. A life ends where the policy retires the child, at `MOST_TASKS`, or where a peak or the idle tree
*passes* the budget. Passing in a task that would have passed in a fresh child too is no policy's fault: counted
apart, as "alone".

Tasks are compared with an oracle that knows each child's future: the most tasks that very child could have run
without passing. No learner reaches it, so the column "hindsight" shows what the best constant tail, chosen
afterwards so that at most 1 % of the lives pass, would have reached.

Policies: "rule" is `must_retire` after every task, and the figures without another name are its; "N" is
`choose_max_tasks` at a risk of 1 % without the rule; "backstop" the same at `BACKSTOP_RISK`; "both" the rule
with the backstop. --quick runs the rule alone.

"leak", "step", "plateau" and "none": the share of the rule's pools that `recyclery leaks` calls so, by the runs
that the history would have kept.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.contract import Bound, close
from benchmarks.policy_worlds import BASELINE_MIB, WORLDS, Task, World
from recyclery.decide.max_tasks import BACKSTOP_RISK, choose_max_tasks, must_retire
from recyclery.decide.memory_model import RISK, PoolModel, TaskRun, headroom_bytes, learn, learn_idle
from recyclery.history.reader import StoredRun
from recyclery.history.records import Parts
from recyclery.leaks.growth import ORDER, Shape, classify_growth, is_leak
from recyclery.leaks.report import JUDGED_RUNS

MIB = 1 << 20
MOST_TASKS = 100
POOL_LIFETIMES = 100
FIRST_LIFETIMES = 5
SHAPES: tuple[Shape, ...] = ("leak", "step", "plateau", "none")


@dataclass(frozen=True)
class Policy:
    """What ends a life: the rule, a number of tasks at some risk, or a constant tail in MiB."""

    rule: bool = False
    number_risk: float | None = None
    tail: float | None = None


RULE = Policy(rule=True)
OTHERS = {
    "N": Policy(number_risk=RISK),
    "backstop": Policy(number_risk=BACKSTOP_RISK),
    "both": Policy(rule=True, number_risk=BACKSTOP_RISK),
}


@dataclass(frozen=True)
class Life:
    """How one child's life went: tasks run, the oracle's, and how it passed: avoidably or alone."""

    tasks: int
    oracle: int
    passed: bool
    alone: bool


@dataclass
class Tally:
    """Sums over lifetimes."""

    lives: int = 0
    passed: int = 0
    alone: int = 0
    first_lives: int = 0
    first_passed: int = 0
    tasks: int = 0
    oracle: int = 0
    false_recycles: int = 0
    verdicts: Counter[Shape] = field(default_factory=Counter)

    def add(self, life: Life, first: bool) -> None:
        """Count one life; `first` if it was among a pool's first."""
        self.lives += 1
        self.passed += life.passed
        self.alone += life.alone
        self.first_lives += first
        self.first_passed += first and life.passed
        self.tasks += life.tasks
        self.oracle += life.oracle
        self.false_recycles += life.tasks < life.oracle == MOST_TASKS

    @property
    def share(self) -> float:
        """Lives that passed their budget, not counting tasks too large for any child."""
        return self.passed / self.lives

    @property
    def ratio(self) -> float:
        """Tasks run against the oracle's."""
        return self.tasks / self.oracle


def simulate(world: World, policy: Policy, pools: int, seed: int) -> Tally:
    """Run so many pools, each from nothing."""
    tally = Tally()
    for pool in range(pools):
        chance = random.Random(f"{seed} {world.name} {pool}")  # noqa: S311 - repeatable on purpose
        model, runs = PoolModel(), list[StoredRun]()
        for number in range(POOL_LIFETIMES):
            script = [world.task(chance, place, number / POOL_LIFETIMES) for place in range(MOST_TASKS)]
            life, model, lived = live(world, script, model, policy, chance)
            tally.add(life, number < FIRST_LIFETIMES)
            runs += (keep(run, number, len(runs) + place) for place, run in enumerate(lived))
        if policy == RULE:
            tally.verdicts[name_shape(runs)] += 1
    return tally


def keep(run: TaskRun, child: int, second: int) -> StoredRun:
    """Return a run as the history keeps it; all memory is the child's own."""
    return StoredRun(
        pool=run.pool,
        child=child,
        tasks={run.task_name: 1},
        place=run.tasks_before,
        ended=float(second),
        seconds=1.0,
        before=Parts(run.before_bytes),
        peak=Parts(run.peak_bytes),
        after=None if run.after_bytes is None else Parts(run.after_bytes),
        browser_seen=False,
        outcome="done",
    )


def name_shape(runs: Sequence[StoredRun]) -> Shape:
    """Return what the leak report calls a pool: by the task that leaks most, else by the least sure one."""
    tasks = classify_growth(runs[-JUDGED_RUNS:])
    leaking = [task for task in tasks if is_leak(task.shape)]
    if leaking:
        return max(leaking, key=lambda task: task.mean_bytes).shape
    return min((task.shape for task in tasks), key=ORDER.index)


def live(
    world: World, script: list[Task], model: PoolModel, policy: Policy, chance: random.Random
) -> tuple[Life, PoolModel, list[TaskRun]]:
    """Let one child live through its script; return how that went, what is known after it, and its runs."""
    fresh = BASELINE_MIB + chance.gauss(0, 2)
    tree, done, passed, alone = fresh, 0, False, False
    runs: list[TaskRun] = []
    before = seen(world, tree, chance)
    model = learn_idle(model, before)
    for task in script:
        passed = tree + task.peak > world.budget
        alone = passed and fresh + task.peak > world.budget
        after = seen(world, tree + task.growth, chance)
        # Looks now and then see up to so much of the peak, and with an error of their own.
        peak = seen(world, tree + task.peak * (1 - chance.random() * world.unseen_peak), chance)
        runs.append(TaskRun("slow", task.name, done, before, max(peak, after), after))
        if policy.tail is None:
            model = learn_idle(learn(model, runs[-1]), after)
        tree, before, done = tree + task.growth, after, done + 1
        if passed or ends(policy, model, before, done, int(world.budget * MIB)):
            break
    longest = oracle(world, script, fresh)
    return Life(min(done, longest), longest, passed and not alone, alone), model, runs


def seen(world: World, tree: float, chance: random.Random) -> int:
    """Return a tree in bytes as it is measured."""
    return int((tree + chance.gauss(0, world.noise)) * MIB)


def ends(policy: Policy, model: PoolModel, idle_bytes: int, done: int, budget_bytes: int) -> bool:
    """Tell whether the policy ends the life here."""
    if policy.tail is not None:
        return idle_bytes + policy.tail * MIB > budget_bytes
    if policy.rule and must_retire(model, idle_bytes, budget_bytes, headroom_bytes(model)) is not None:
        return True
    if policy.number_risk is None:
        return False
    return done >= choose_max_tasks(model, budget_bytes, MOST_TASKS, policy.number_risk)


def oracle(world: World, script: list[Task], fresh: float) -> int:
    """Return the most tasks of the script that this child can run without passing its budget."""
    tree = fresh
    for place, task in enumerate(script):
        if tree + task.peak > world.budget:
            return place
        tree += task.growth
    return len(script)


def best_in_hindsight(world: World, pools: int, seed: int) -> float:
    """Return the ratio to the oracle of the smallest constant tail with which at most 1 % of the lives pass."""
    low, high = 0.0, world.budget
    for _ in range(8):
        tail = (low + high) / 2
        if simulate(world, Policy(tail=tail), pools, seed).share > RISK:
            low = tail
        else:
            high = tail
    return simulate(world, Policy(tail=high), pools, seed).ratio


def measure(world: World, pools: int, seed: int, quick: bool) -> dict[str, float]:
    """Return a world's figures by name; what the rule is compared with, on a quarter of the pools."""
    tally = simulate(world, RULE, pools, seed)
    figures = {
        "passed": tally.share,
        "of first 5": tally.first_passed / tally.first_lives,
        "alone": tally.alone / tally.lives,
        "ratio": tally.ratio,
        "tasks": tally.tasks / tally.lives,
        "too early": tally.false_recycles / tally.lives,
    }
    for shape in SHAPES:
        figures[shape] = tally.verdicts[shape] / pools
    few = 0 if quick else math.ceil(pools / 4)
    if few:
        figures["hindsight"] = best_in_hindsight(world, few, seed)
    for name, policy in OTHERS.items() if few else ():
        other = simulate(world, policy, few, seed)
        figures[f"{name}: passed"] = other.share
        figures[f"{name}: ratio"] = other.ratio
    return {name: round(figure, 4) for name, figure in figures.items()}


def main() -> int:
    """Measure all worlds and hold the worst of them to the bounds."""
    parser = argparse.ArgumentParser(prog="scripts/bench policy_sim", description=__doc__)
    parser.add_argument(
        "--lifetimes", type=int, default=2000, help="per world; rounded up to whole pools of 100"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="300 lifetimes per world, the rule alone")
    args = parser.parse_args()
    pools = max(1, math.ceil((300 if args.quick else args.lifetimes) / POOL_LIFETIMES))
    results: dict[str, dict[str, float]] = {}
    for world in WORLDS:
        figures = results[world.name] = measure(world, pools, args.seed, args.quick)
        if len(results) == 1:
            print(f"{'* with surprises':24}" + "".join(f"{name:>{len(name) + 2}}" for name in figures))
        label = world.name + (" *" if world.surprises else "")
        print(
            f"{label:24}" + "".join(f"{figure:{len(name) + 2}.4g}" for name, figure in figures.items()),
            flush=True,
        )
    worst = max(figures["passed"] for figures in results.values())
    regular = min(results[world.name]["ratio"] for world in WORLDS if not world.surprises)
    early = max(results[world.name]["too early"] for world in WORLDS if not world.leaks)
    return close(
        "policy_sim",
        {"lifetimes per world": pools * POOL_LIFETIMES, "seed": args.seed, "worlds": results},
        {
            "worst share that pass the budget": Bound(worst, "<=", 0.03),
            "worst ratio to the oracle, no surprises": Bound(regular, ">=", 0.80),
        },
        {
            "worst share that pass the budget": Bound(worst, "<=", 0.01),
            "worst share recycled without a leak": Bound(early, "<=", 0.01),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
