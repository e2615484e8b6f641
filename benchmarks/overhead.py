"""overhead: what supervision costs, PSS and CPU and time per tick, with 0 to 1000 processes, beside others."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.contract import Bound, close
from benchmarks.overhead_meters import Cost, measure_cost, time_ticks, wait_until_calm
from benchmarks.overhead_watchers import PEER_SECONDS, WATCHERS, held_processes, running_watcher
from benchmarks.storm_peers import PeerMissing
from benchmarks.workers import running_redis

MIB = 1 << 20
COUNTS = (0, 10, 100, 1000)


@dataclass(frozen=True)
class Plan:
    """How long everything takes."""

    window_seconds: float
    calm_seconds: float
    ticks: int


@dataclass(frozen=True)
class Measured:
    """One row of the table."""

    watcher: str
    kind: str
    watched: int
    cost: Cost
    population_cores: float
    ticks_seconds: tuple[float, ...]
    """Sorted."""

    @property
    def name(self) -> str:
        """Its name among the figures."""
        return f"{self.watcher}, {self.watched} {self.kind}"

    @property
    def tick_p50_ms(self) -> float | None:
        """How long half of the ticks took at most; None where none was timed."""
        return percentile_ms(self.ticks_seconds, 50)

    @property
    def tick_p95_ms(self) -> float | None:
        """How long 95 % of them took at most."""
        return percentile_ms(self.ticks_seconds, 95)

    def row(self) -> str:
        """Return it as the table has it."""
        ticks = (
            f"{value:8.2f}" if value is not None else f"{'-':>8}"
            for value in (self.tick_p50_ms, self.tick_p95_ms)
        )
        first, helper = self.cost.pss_bytes["PID 1"] / MIB, self.cost.pss_bytes["helper"] / MIB
        return (
            f"{self.watcher:18} {self.watched:>5} {self.kind:8} "
            f"{first:6.1f} {helper:6.1f} {first + helper:6.1f} "
            f"{self.cost.total_cpu_percent:6.2f} {' '.join(ticks)}"
        )

    def figures(self) -> dict[str, Any]:
        """Return it as the closing line has it."""
        return {
            "watched": self.watched,
            "kind": self.kind,
            "pss_bytes": self.cost.pss_bytes,
            "pss_total_bytes": self.cost.total_pss_bytes,
            "private_total_bytes": self.cost.private_bytes,
            "cpu_percent": {name: round(share, 3) for name, share in self.cost.cpu_percent.items()},
            "cpu_total_percent": round(self.cost.total_cpu_percent, 3),
            "watched_cpu_percent": round(self.population_cores * 100, 1),
            "tick_p50_ms": self.tick_p50_ms,
            "tick_p95_ms": self.tick_p95_ms,
        }


def main() -> int:
    """Measure each supervisor with each population; Recyclery first."""
    args = parse()
    plan = Plan(10.0, 10.0, 20) if args.quick else Plan(args.seconds, 60.0, 100)
    counts = COUNTS[:2] if args.quick else COUNTS
    watchers = WATCHERS[:1] if args.quick or args.no_peers else WATCHERS
    # Every `finally` on the way out is run; also where a shell started us with Ctrl-C ignored.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    header = f"{'supervisor':18} {'':14} {'PSS, MiB':>20} {'CPU, %':>6} {'tick, ms':>17}\n"
    header += (
        f"{'':18} {'watched':14} {'PID 1':>6} {'helper':>6} {'both':>6} {'a core':>6} {'p50':>8} {'p95':>8}"
    )
    rows: list[Measured] = []
    missing: dict[str, str] = {}
    for watcher in watchers:
        for count in counts:
            say(f"{watcher}: {count} processes, a window of {plan.window_seconds:g} s")
            try:
                rows.append(measure(watcher, count, args.chromium, plan))
            except PeerMissing as why:
                missing[watcher] = str(why)
                break
            print(f"{header}\n{rows[-1].row()}" if len(rows) == 1 else rows[-1].row(), flush=True)
    explain(missing)
    return finish(rows, missing)


def parse() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench overhead", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a window (default: 30)")
    parser.add_argument(
        "--chromium",
        type=int,
        metavar="N",
        default=100 if shutil.which("chromium") else 0,
        help="a population larger than this is of `sleep`, not of Chromium (default: 100)",
    )
    parser.add_argument("--no-peers", action="store_true", help="Recyclery alone")
    parser.add_argument("--quick", action="store_true", help="Recyclery alone, 0 and 10 processes, 10 s")
    return parser.parse_args()


def measure(name: str, count: int, most_chromium: int, plan: Plan) -> Measured:
    """Start the supervisor and the population, and measure when both have come to rest."""
    kind = "none" if count == 0 else "chromium" if count <= most_chromium else "sleep"
    ticks: list[float] = []
    with (
        running_redis() as url,
        running_watcher(name, url) as watcher,
        held_processes(url, kind, count) as held,
    ):
        cores = wait_until_calm(held.pids, plan.calm_seconds)
        cost = measure_cost(watcher.first, watcher.helper, plan.window_seconds)
        watched = sum(psutil.pid_exists(pid) for pid in held.pids)
        if watched < len(held.pids):
            raise RuntimeError(
                f"of {len(held.pids)} watched processes only {watched} were left after the window"
            )
        if name == "recyclery":
            ticks, watched = time_ticks(watcher.helper, watcher.main, watcher.runtime_dir, plan.ticks)
            if watched < count:
                raise RuntimeError(
                    f"{count} processes were started, but {watched} were attributed to the child"
                )
    return Measured(
        watcher=name,
        kind=kind,
        watched=watched,
        cost=cost,
        population_cores=cores,
        ticks_seconds=tuple(ticks),
    )


def percentile_ms(ordered: Sequence[float], percent: float) -> float | None:
    """Return the percentile of sorted seconds in milliseconds, by nearest rank; None of nothing."""
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000, 3)


def explain(missing: dict[str, str]) -> None:
    """Say what the table's columns are."""
    print("\n`sleep` are sleeping processes of that name: so many browsers would not fit.")
    print("watched: what Recyclery counts to the task, for the others its session alone, without")
    print("the browsers' crashpad handlers. ResourceWatcher reads the worker and its children, and")
    print("no browser below them (circus 0.19, process.py: info()).")
    print(f"Looks: Recyclery every second, memmon and ResourceWatcher every {PEER_SECONDS} s.")
    print("CPU includes that of the helper's own children (memmon's ps). helper: the governor,")
    print("memmon, ResourceWatcher. tick: observe and decide, done over in this benchmark.")
    for name, why in missing.items():
        print(f"{name}: not measured: {why}")


def finish(rows: list[Measured], missing: dict[str, str]) -> int:
    """Close with the bounds, on the largest population of browsers that was asked for."""
    figures: dict[str, object] = {row.name: row.figures() for row in rows}
    figures["missing"] = missing
    ours = [row for row in rows if row.watcher == "recyclery"]
    bounded = max(
        (row for row in ours if row.kind == "chromium"), key=lambda row: row.watched, default=ours[-1]
    )
    about = f"{bounded.watched} {bounded.kind}"
    pss_mib = round(bounded.cost.total_pss_bytes / MIB, 1)
    cpu_percent = round(bounded.cost.total_cpu_percent, 2)
    required = {
        f"PSS MiB, {about}": Bound(pss_mib, "<=", 70),
        f"CPU % of a core, {about}": Bound(cpu_percent, "<=", 1),
    }
    goal = {
        f"PSS MiB, {about}": Bound(pss_mib, "<=", 45),
        f"CPU % of a core, {about}": Bound(cpu_percent, "<=", 0.5),
    }
    samples = {
        f"{row.name}: tick_p50_ms": [round(seconds * 1000, 3) for seconds in row.ticks_seconds] for row in rows
    }
    return close("overhead", figures, required, goal, samples)


def say(line: str) -> None:
    """Tell how far it is, apart from the table."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
