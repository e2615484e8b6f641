"""tune: does `recyclery tune` find the level known to be best?"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import psutil

from benchmarks.contract import Bound, close
from benchmarks.tune_storm import StormRun, tune_storm
from benchmarks.workers import clean_environment, running_redis
from recyclery.observe.cgroup import allowed_cores
from recyclery.tune.run_file import read_run_file
from recyclery.tune.window import Window

ROOT = Path(__file__).parents[1]
LEVELS = (1, 2, 3, 4, 6, 8)
MAX_TASKS, SECONDS = 5, 6
MIB = 1 << 20
# Of the memory-bound task: four of its children fit below the retire level, six pass the hard one.
HELD_BYTES, LIMIT_BYTES = 120 * MIB, 1000 * MIB
SEEDS = 5
QUICK_KINDS = ("sleep",)
QUICK_LEVELS = (1, 2, 4)
RUN_SECONDS = 900.0


@dataclass(frozen=True)
class Kind:
    """A task, the level that is best for it by how it is made, and the limit that this rests on."""

    task: str
    arguments: tuple[object, ...]
    best: int
    limit_bytes: int | None = None


def list_kinds(folder: Path) -> dict[str, Kind]:
    """Return the kinds of tasks."""
    cores = int(allowed_cores(Path("/sys/fs/cgroup")))
    return {
        "cpu": Kind("burn", (0.2,), max(level for level in LEVELS if level <= max(1, cores))),
        "sleep": Kind("sleep", (0.5,), LEVELS[-1]),
        "memory": Kind("hold", (0.5, HELD_BYTES), 4, LIMIT_BYTES),
        "lock": Kind("queue_up", (0.2, str(folder / "lock")), 1),
    }


@dataclass(frozen=True)
class Found:
    """What one run of `recyclery tune` recommended, and what it measured."""

    kind: str
    best: int
    recommended: int | None
    levels: tuple[int, ...]
    others_share: float
    """Of the machine's CPU, what was used beside the windows: by others, and to start and stop."""
    windows: tuple[Window, ...]

    @property
    def is_right(self) -> bool:
        """Whether that is the best level, or its neighbour."""
        if self.recommended not in self.levels:
            return False
        return abs(self.levels.index(self.recommended) - self.levels.index(self.best)) <= 1


def run_tune(kind: str, made: Kind, seed: int, folder: Path, *, quick: bool) -> Found:
    """Run `recyclery tune` on one kind of task, with a Redis of its own."""
    calls, run = folder / f"{kind}.args", folder / f"{kind}-{seed}.jsonl"
    calls.write_text(json.dumps(made.arguments) + "\n")
    options = ["--pool", "slow", "--task", f"benchmarks.tune_app.{made.task}", "--args", str(calls), "--json"]
    options += ["--max-tasks-per-child", str(2 if quick else MAX_TASKS), "--seed", str(seed), "--out", str(run)]
    levels = QUICK_LEVELS if quick else LEVELS
    options += ["--concurrency", ",".join(map(str, levels)), "--repeats", "1"]
    options += ["--seconds", "2" if quick else str(SECONDS)]
    if made.limit_bytes is not None:
        options += ["--memory", str(made.limit_bytes)]
    began, busy = time.monotonic(), used_cpu_seconds()
    with running_redis() as url:
        done = subprocess.run(
            [sys.executable, "-m", "recyclery", "tune", *options],
            env={
                **clean_environment(),
                "CELERY_APP": "benchmarks.tune_app",
                "PYTHONPATH": str(ROOT),
                "REDIS_URL": url,
            },
            stdout=subprocess.PIPE,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
    if done.returncode != 0:
        raise SystemExit(f"recyclery tune ended with {done.returncode}")
    recommended = json.loads(done.stdout)["recommended"]
    best = max(level for level in levels if level <= made.best)
    chosen = recommended and recommended["concurrency"]
    windows = read_run_file(run).windows
    beside = used_cpu_seconds() - busy - sum(window.cpu_seconds for window in windows)
    share = beside / (time.monotonic() - began) / (os.cpu_count() or 1)
    return Found(kind, best, chosen, levels, round(share, 2), windows)


def used_cpu_seconds() -> float:
    """Return the CPU time that the whole machine has used."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def tell(found: Found) -> None:
    """Print what one run found."""
    rates = {w.level.concurrency: w.done / w.seconds for w in found.windows if not w.stopped and w.seconds}
    told = ", ".join(f"{level}: {rate:.2f}/s" for level, rate in sorted(rates.items()))
    print(
        f"{found.kind:6} best {found.best}, found {found.recommended}; others {found.others_share:.0%}; {told}",
        file=sys.stderr,
        flush=True,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="scripts/bench tune", description=__doc__)
    parser.add_argument(
        "--kind", action="append", choices=("cpu", "sleep", "memory", "lock"), help="default: all"
    )
    parser.add_argument("--runs", type=int, default=SEEDS, metavar="N", help=f"of each kind (default: {SEEDS})")
    parser.add_argument("--storm", action="store_true", help="the example's scraping task in 1 and 2 GiB, too")
    parser.add_argument("--quick", action="store_true", help="one short run of the sleep-bound task")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-tune-") as name:
        folder = Path(name)
        kinds = list_kinds(folder)
        chosen = args.kind or (QUICK_KINDS if args.quick else tuple(kinds))
        found = []
        for seed in range(1 if args.quick else args.runs):
            for kind in chosen:
                found.append(run_tune(kind, kinds[kind], seed, folder, quick=args.quick))
                tell(found[-1])
        storms = [tune_storm(limit << 30, folder) for limit in (1, 2)] if args.storm else []
    return report(found, storms)


def report(found: list[Found], storms: list[StormRun]) -> int:
    """Print the bounds; return the exit status."""
    required = {}
    if found:
        required["right or its neighbour"] = Bound(fmean(each.is_right for each in found), ">=", 19 / 20)
    for storm in storms:
        required[f"OOM kills, {storm.limit_gib:g} GiB"] = Bound(float(storm.oom_kills), "==", 0.0)
        required[f"of the best by hand, {storm.limit_gib:g} GiB"] = Bound(storm.share_of_best, ">=", 0.95)
    figures = {
        "runs": [
            {"kind": e.kind, "best": e.best, "recommended": e.recommended, "others": e.others_share}
            for e in found
        ],
        "storms": [storm.document() for storm in storms],
    }
    return close("tune", figures, required, {})


if __name__ == "__main__":
    sys.exit(main())
