"""storm_table: not a benchmark; the figures of the leak storm's runs, side by side and against their bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.contract import Bound
from recyclery.common.units import format_bytes
from recyclery_demo.display import format_recycles
from recyclery_demo.summary import Summary

REFERENCE = "clean"
LEAST_RATIO, GOAL_RATIO = 0.85, 0.95
# In these mixes no child ever comes near its budget: whoever recycles one for its memory was mistaken.
WITHOUT_LEAK = ("warmup", "clean", "forks")
# Tasks that take longer by themselves are not compared with the others.
LONGER = ("forks",)
NEEDLESS = ("budget", "replace", "preempt")


@dataclass(frozen=True)
class Case:
    """What was run: one row of the table."""

    manager: str
    mix: str
    limit_bytes: int

    @property
    def reference(self) -> Case:
        """The same without any leak."""
        return Case(self.manager, REFERENCE, self.limit_bytes)


Runs = Mapping[Case, Sequence[Summary]]


def throughput(run: Summary) -> float:
    """Scraping tasks done per second."""
    return run.succeeded / run.scraped_seconds


def ratio(runs: Runs, case: Case) -> float | None:
    """Return the median throughput against the storms without leak, or None where there were none."""
    of_case, of_reference = (
        [throughput(run) for run in runs.get(which, []) if run.scraped_seconds > 0]
        for which in (case, case.reference)
    )
    if not of_case or not of_reference or median(of_reference) == 0:
        return None
    return round(median(of_case) / median(of_reference), 3)


def ratio_samples(runs: Runs) -> dict[str, list[float]]:
    """Return the ratio of each run to the one without leaks of the same turn, by the names of the bounds."""
    return {
        f"{name_case(runs, case)}: throughput against clean": [
            round(throughput(run) / throughput(clean), 3)
            for run, clean in zip(of_case, runs.get(case.reference, ()), strict=False)
            if run.scraped_seconds > 0 and clean.scraped_seconds > 0 and clean.succeeded
        ]
        for case, of_case in ours(runs).items()
        if case.mix != REFERENCE
    }


def add_recycles(runs: Sequence[Summary]) -> Counter[str]:
    """Add up the recycles by reason."""
    return sum((Counter(run.recycles) for run in runs), Counter())


def count_needless(runs: Sequence[Summary]) -> int:
    """Count the recycles that a storm without leak cannot have needed, from its first task on."""
    recycles = add_recycles(runs)
    return sum(recycles[reason] for reason in NEEDLESS)


def print_table(runs: Runs) -> None:
    """Print a row for each case: its worst counts and its median time; the recycles below."""
    most_runs = max((len(of_case) for of_case in runs.values()), default=0)
    if most_runs > 1:
        print(f"\nof {most_runs} runs each: the worst counts, the median seconds, reaped and recycles in all")
    print(
        f"\n{'manager':18} {'mix':8} {'memory':>8} {'done':>7} {'fail':>4} {'lost':>4} {'queue':>5}"
        f" {'twice':>5} {'OOM':>4} {'sec':>5} {'/clean':>6} {'peak':>8} {'reap':>4}"
    )
    for case, of_case in runs.items():
        print(make_row(case, of_case, ratio(runs, case)))
    print()
    for case, of_case in runs.items():
        if recycles := add_recycles(of_case):
            print(f"recycles under {case.manager}, {case.mix}: {format_recycles(recycles)}")


def make_row(case: Case, of_case: Sequence[Summary], against_clean: float | None) -> str:
    """Return one row; who reaped and recycled is known of Recyclery only."""
    worst = {
        name: max(getattr(run, name) for run in of_case)
        for name in ("failed", "lost", "queued", "duplicates", "oom_kills", "peak_bytes")
    }
    done = f"{min(run.succeeded for run in of_case)}/{of_case[0].tasks}"
    reaped = str(sum(run.orphans_reaped for run in of_case)) if case.manager == "recyclery" else "–"
    return (
        f"{case.manager:18} {case.mix:8} {format_bytes(case.limit_bytes):>8} {done:>7} {worst['failed']:>4}"
        f" {worst['lost']:>4} {worst['queued']:>5} {worst['duplicates']:>5} {worst['oom_kills']:>4}"
        f" {median(run.scraped_seconds for run in of_case):>5.0f}"
        f" {'–' if against_clean is None else format(against_clean, '.2f'):>6}"
        f" {format_bytes(worst['peak_bytes']):>8} {reaped:>4}"
    )


def required_bounds(runs: Runs) -> dict[str, Bound]:
    """Return what has to hold in every mix under Recyclery."""
    bounds: dict[str, Bound] = {}
    for case, of_case in ours(runs).items():
        name = name_case(runs, case)
        bounds[f"{name}: done"] = Bound(min(run.succeeded for run in of_case), "==", of_case[0].tasks)
        bounds[f"{name}: OOM kills"] = Bound(max(run.oom_kills for run in of_case), "==", 0)
        bounds[f"{name}: lost"] = Bound(max(run.lost for run in of_case), "==", 0)
        if case.mix in WITHOUT_LEAK:
            bounds[f"{name}: needless recycles"] = Bound(count_needless(of_case), "==", 0)
    return bounds | ratio_bounds(runs, LEAST_RATIO)


def ratio_bounds(runs: Runs, least: float) -> dict[str, Bound]:
    """Return the bound on the throughput of each mix under Recyclery but the reference itself."""
    ratios = {case: ratio(runs, case) for case in ours(runs) if case.mix not in {REFERENCE, *LONGER}}
    return {
        f"{name_case(runs, case)}: throughput against clean": Bound(value, ">=", least)
        for case, value in ratios.items()
        if value is not None
    }


def ours(runs: Runs) -> dict[Case, Sequence[Summary]]:
    """Return the runs under Recyclery."""
    return {case: of_case for case, of_case in runs.items() if case.manager == "recyclery"}


def name_case(runs: Runs, case: Case) -> str:
    """Name a case of ours by its mix, and by its memory where there were several."""
    several = len({other.limit_bytes for other in runs}) > 1
    return f"{case.mix} in {format_bytes(case.limit_bytes)}" if several else case.mix
