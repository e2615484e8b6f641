"""leak_report: known leaks planted in mixed pools: does `leaks` name the task, the place, the size, the shape?

Each pool runs some tasks in random order, 200 runs each, in children of 100 tasks, of 300, and of 20, where
each runs a task so seldom that a leak cannot be told from a warm-up: there saying so is the right answer, and
only false alarms count. Planted are leaks of 0.5 to 50 MB per task in Python, in a kept browser and in shared
memory, steps (one run in thirty leaves it all), caches that fill and then hold still, and tasks that leave
nothing. One leak comes behind a warm-up: counted apart, for in short lives nobody can tell. Readings are as
noisy as measured ones (benchmarks/leak_worlds.py). An error is that against what the task's runs did leak.

Beside it stands the naive way: the slope of RSS over a child's tasks, which a child's every task shares.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from benchmarks.contract import Bound, close
from benchmarks.leak_worlds import MIB, Planted, live
from recyclery.history.reader import StoredRun
from recyclery.leaks.growth import TaskGrowth, classify_growth, is_leak

RUNS_EACH = 200
WITHIN = 0.15


@dataclass(frozen=True)
class Mix:
    """One pool: its tasks, and whether its children keep a browser."""

    name: str
    tasks: tuple[Planted, ...]
    browsers: bool = False


NONE = Planted("nothing", "none")
MIXES = (
    Mix(
        "Python, small",
        (
            Planted("half", "leak", mib=0.5),
            Planted("one", "leak", mib=1),
            Planted("two", "leak", mib=2),
            Planted("cache", "plateau", warm_up=40),
            NONE,
        ),
    ),
    Mix(
        "Python, large",
        (
            Planted("five", "leak", mib=5),
            Planted("fifty", "leak", mib=50),
            Planted("uneven", "leak", mib=8, relative=1.0),
            Planted("step", "step", mib=4),
            NONE,
        ),
    ),
    Mix(
        "caches",
        (
            Planted("small cache", "plateau", warm_up=20, warm_up_runs=3),
            Planted("large cache", "plateau", warm_up=200, warm_up_runs=10),
            Planted("slow cache", "plateau", warm_up=60, warm_up_runs=25),
            Planted("one", "leak", mib=1),
            NONE,
        ),
    ),
    Mix(
        "kept browsers",
        (
            Planted("browser 1", "leak", "browser", 1),
            Planted("browser 10", "leak", "browser", 10),
            Planted("Python 2", "leak", mib=2),
            Planted("browser cache", "plateau", "browser", warm_up=60, warm_up_runs=5),
            NONE,
        ),
        browsers=True,
    ),
    Mix(
        "browsers, large",
        (
            Planted("browser 3", "leak", "browser", 3),
            Planted("browser 30", "leak", "browser", 30),
            Planted("browser step", "step", "browser", 4),
            NONE,
        ),
        browsers=True,
    ),
    Mix("alone, one", (Planted("one", "leak", mib=1),)),
    Mix("alone, a cache", (Planted("cache", "plateau", warm_up=60),)),
    Mix(
        "shared memory",
        (
            Planted("shared 1", "leak", "shared", 1),
            Planted("shared 20", "leak", "shared", 20),
            Planted("Python 1", "leak", mib=1),
            Planted("warm, then 3", "leak", mib=3, warm_up=30),
            NONE,
        ),
    ),
)


@dataclass
class Tally:
    """What was said of planted tasks."""

    errors: dict[str, list[float]] = field(default_factory=dict)
    naive: dict[str, list[float]] = field(default_factory=dict)
    named: Counter[str] = field(default_factory=Counter)
    said: dict[str, Counter[str]] = field(default_factory=dict)
    covered: list[bool] = field(default_factory=list)
    behind: list[bool] = field(default_factory=list)
    """Of each leak that a warm-up goes before, whether it was called one."""

    def add(self, task: Planted, growth: TaskGrowth, true_mib: float, naive_mib: float) -> None:
        """Take down one verdict."""
        self.said.setdefault(task.shape, Counter())[growth.shape] += 1
        if task.shape not in {"leak", "step"} or task.mib < 1 or not true_mib:
            return
        if task.warm_up:
            self.behind.append(is_leak(growth.shape))
            return
        error = abs(growth.mean_bytes / MIB - true_mib) / true_mib
        self.covered.append(abs(growth.mean_bytes / MIB - true_mib) <= growth.margin_bytes / MIB)
        self.errors.setdefault(task.place, []).append(error)
        self.naive.setdefault(task.place, []).append(abs(naive_mib - true_mib) / true_mib)
        right = is_leak(growth.shape) and growth.place == task.place and error <= WITHIN
        self.named[f"{task.shape} {'right' if right else 'wrong'}"] += 1

    def share(self, planted: str, *said: str) -> float | None:
        """Return how often a shape that was planted was called one of these; None where none was planted."""
        counts = self.said.get(planted, Counter())
        return sum(counts[shape] for shape in said) / counts.total() if counts else None


def naive_slopes(runs: Sequence[StoredRun]) -> dict[str, float]:
    """Return for each task the slope of all memory over the tasks of the children that ran it, in MiB."""
    points: dict[int, list[tuple[int, float]]] = {}
    for run in runs:
        if run.after is not None:
            points.setdefault(run.child, []).append((run.place, run.after.total / MIB))
    slopes = []
    for series in points.values():
        x, y = fmean(place for place, _ in series), fmean(size for _, size in series)
        spread = sum((place - x) ** 2 for place, _ in series)
        slopes.append(sum((place - x) * (size - y) for place, size in series) / max(1, spread))
    return {task: fmean(slopes) for run in runs for task in run.tasks}


def measure(mix: Mix, tasks_per_child: int, pools: int, seed: int, noise: float) -> Tally:
    """Run so many pools of one mix."""
    tally = Tally()
    for pool in range(pools):
        runs, left = live(
            mix.tasks,
            RUNS_EACH,
            tasks_per_child,
            f"{seed} {mix.name} {tasks_per_child} {pool}",
            noise=noise,
            browsers=mix.browsers,
        )
        growths = {growth.task: growth for growth in classify_growth(runs)}
        naive = naive_slopes(runs)
        for task in mix.tasks:
            tally.add(task, growths[task.name], left[task.name], naive[task.name])
    return tally


def main() -> int:
    """Measure all mixes and hold the figures to the bounds."""
    parser = argparse.ArgumentParser(prog="scripts/bench leak_report", description=__doc__)
    parser.add_argument("--pools", type=int, default=60, help="of each mix and length of life")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="6 pools of each")
    args = parser.parse_args()
    pools = 6 if args.quick else args.pools
    head = ("life", "named", "error", "naive", "leak", "step", "level")
    print(f"{'pool':17} " + "".join(f"{name:>7}" for name in head) + "  undecided")
    tallies: dict[str, dict[int, Tally]] = {}
    for mix in MIXES:
        for life in (300, 100, 20):
            tally = tallies.setdefault(mix.name, {})[life] = measure(mix, life, pools, args.seed, 1.0)
            print(line(mix.name, life, tally), flush=True)
    judged = [tally for lives in tallies.values() for life, tally in lives.items() if life >= 100]
    short = [lives[20] for lives in tallies.values()]
    return report(pools, judged, short, tallies, args.seed)


def line(name: str, life: int, tally: Tally) -> str:
    """Return one line of the table."""
    errors = [error for place in tally.errors.values() for error in place]
    naive = [error for place in tally.naive.values() for error in place]
    undecided = sum(said["undecided"] for said in tally.said.values())
    total = sum(said.total() for said in tally.said.values())
    return (
        f"{name:17} {life:7} {shown(errors and right_share([tally]))} {shown(errors and median(errors))} "
        f"{shown(naive and median(naive))} {shown(tally.share('leak', 'leak'))} "
        f"{shown(tally.share('step', 'step'))} {shown(tally.share('plateau', 'plateau', 'none'))} "
        f"{undecided / total:10.1%}"
    )


def shown(share: object) -> str:
    """Return a share in six columns; a stroke where there is none."""
    return f"{share:6.1%}" if isinstance(share, float) else f"{'-':>6}"


def right_share(tallies: Sequence[Tally], shapes: Sequence[str] = ("leak", "step")) -> float:
    """Return the share of planted leaks that were named with task, place and size."""
    right = sum(tally.named[f"{shape} right"] for tally in tallies for shape in shapes)
    wrong = sum(tally.named[f"{shape} wrong"] for tally in tallies for shape in shapes)
    return right / max(1, right + wrong)


def report(
    pools: int,
    judged: Sequence[Tally],
    short: Sequence[Tally],
    tallies: dict[str, dict[int, Tally]],
    seed: int,
) -> int:
    """Print the bounds and the closing line; return the exit status."""
    every = [*judged, *short]

    def called(of: Sequence[Tally], planted: str, *said: str) -> float:
        counts = [tally.said[planted] for tally in of if planted in tally.said]
        return sum(count[shape] for count in counts for shape in said) / sum(count.total() for count in counts)

    errors = [error for tally in judged for place in tally.errors.values() for error in place]
    naive = [error for tally in judged for place in tally.naive.values() for error in place]
    figures: dict[str, object] = {
        "pools of each": pools,
        "seed": seed,
        "median error": round(median(errors), 4),
        "95 % of the errors below": round(sorted(errors)[len(errors) * 95 // 100], 4),
        "median error of the naive slope": round(median(naive), 4),
        "true value within the interval": round(fmean(hit for tally in judged for hit in tally.covered), 4),
        "undecided": round(
            sum(said["undecided"] for tally in judged for said in tally.said.values())
            / sum(said.total() for tally in judged for said in tally.said.values()),
            4,
        ),
        "leaks behind a warm-up called one": round(fmean(hit for tally in judged for hit in tally.behind), 4),
        "leaks named in children of 20 tasks": round(right_share(short), 4),
        "pools": {
            f"{name}, children of {life}": {
                "named": round(right_share([tally]), 4),
                "said": {planted: dict(said) for planted, said in tally.said.items()},
            }
            for name, lives in tallies.items()
            for life, tally in lives.items()
        },
    }
    return close(
        "leak_report",
        figures,
        {
            "leaks >= 1 MB: task, place, 15 %": Bound(round(right_share(judged), 4), ">=", 0.95),
            "plateaus called a leak": Bound(round(called(every, "plateau", "leak", "step"), 4), "<=", 0.05),
            "tasks without a leak called one": Bound(
                round(called(every, "none", "leak", "step"), 4), "<=", 0.05
            ),
        },
        {
            "leaks >= 1 MB: task, place, 15 %": Bound(round(right_share(judged), 4), ">=", 0.99),
            "plateaus called a leak": Bound(round(called(every, "plateau", "leak", "step"), 4), "<=", 0.01),
            "shapes named right": Bound(
                round(
                    fmean(
                        (
                            called(judged, "leak", "leak"),
                            called(judged, "step", "step"),
                            called(judged, "plateau", "plateau", "none"),
                            called(judged, "none", "none", "plateau"),
                        )
                    ),
                    4,
                ),
                ">=",
                0.9,
            ),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
