"""leak_storm: 150 scraping tasks in 1 GiB, in nine mixes of leaks, under Recyclery and under its peers."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contract import cannot_run, close
from benchmarks.storm_peers import MANAGERS, PeerMissing, make_manager
from benchmarks.storm_table import (
    GOAL_RATIO,
    REFERENCE,
    Case,
    print_table,
    ratio,
    ratio_bounds,
    ratio_samples,
    required_bounds,
)
from recyclery.common.units import format_bytes, parse_size
from recyclery_demo.command import run_storm
from recyclery_demo.options import Options, default_fast_tasks, number_from, parse_limit, read_seconds
from recyclery_demo.plan import MIXES
from recyclery_demo.requirements import DemoError, find_requirements
from recyclery_demo.summary import Summary

TASKS, QUICK_TASKS = 150, 12
QUICK_MIXES = ("browsers", REFERENCE)
PEER_MIXES = ("browsers",)
DEADLINE_SECONDS = 900.0
PEER_DEADLINE_SECONDS = 300.0
INTERRUPTED = 130


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Return the options, every default filled in but the mixes, which depend on the manager."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench leak_storm",
        description=__doc__,
        epilog="The mixes: " + "; ".join(f"{name}: {mix.text}" for name, mix in MIXES.items()),
    )
    parser.add_argument(
        "--manager",
        action="append",
        choices=[*MANAGERS, "all"],
        help="who runs the workers (default: recyclery)",
    )
    parser.add_argument(
        "--mix", action="append", choices=MIXES, help="default: all under recyclery, browsers under its peers"
    )
    parser.add_argument("--memory", action="append", type=parse_limit, metavar="SIZE", help="default: 1GiB")
    parser.add_argument("--tasks", type=number_from(1), metavar="N", help=f"default: {TASKS}")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which tasks leak (default: 1)")
    parser.add_argument(
        "--runs", type=number_from(1), default=1, metavar="N", help="of each storm, in turns (default: 1)"
    )
    parser.add_argument(
        "--peer-deadline",
        type=read_seconds,
        default=PEER_DEADLINE_SECONDS,
        metavar="SECONDS",
        help="when to give a peer up (default: 300)",
    )
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep each storm's log in this folder")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_TASKS} tasks; {' and '.join(QUICK_MIXES)} unless said"
    )
    args = parser.parse_args(arguments)
    args.manager = list(MANAGERS) if "all" in (args.manager or []) else args.manager or ["recyclery"]
    args.memory = args.memory or [parse_size("1GiB")]
    args.tasks = args.tasks or (QUICK_TASKS if args.quick else TASKS)
    return args


def list_cases(args: argparse.Namespace) -> Iterator[Case]:
    """List what is to be run; Recyclery always runs the reference too, for its bounds are told against it."""
    for limit_bytes in dict.fromkeys(args.memory):
        for manager in dict.fromkeys(args.manager):
            mixes = args.mix or (PEER_MIXES if manager != "recyclery" else QUICK_MIXES if args.quick else MIXES)
            also = [REFERENCE] if manager == "recyclery" else []
            for mix in dict.fromkeys([*mixes, *also]):
                yield Case(manager, mix, limit_bytes)


def run_all(
    args: argparse.Namespace, folder: Path, runs: dict[Case, list[Summary]], left_out: dict[str, str]
) -> None:
    """Run every case so many times, in turns; fill in the summaries, and which peers are left out and why."""
    for run in range(1, args.runs + 1):
        for case in list_cases(args):
            if case.manager in left_out:
                continue
            about = f"{case.manager}, {case.mix} ({MIXES[case.mix].text}), {format_bytes(case.limit_bytes)}"
            print(f"\n--- {about}, run {run} of {args.runs}", file=sys.stderr, flush=True)
            try:
                summary = run_storm(make_manager(case.manager, folder), make_options(args, case, run))
            except (PeerMissing, DemoError) as error:
                if case.manager == "recyclery":
                    raise SystemExit(f"the storm did not run: {error}") from error
                print(f"left out: {error}", file=sys.stderr)
                left_out[case.manager] = str(error).partition("\n")[0]
                continue
            if summary.ending == "interrupted":
                raise KeyboardInterrupt
            runs.setdefault(case, []).append(summary)
            print(make_progress(summary), file=sys.stderr, flush=True)


def make_options(args: argparse.Namespace, case: Case, run: int) -> Options:
    """Return the demo's options for one storm."""
    log = None
    if args.logs is not None:
        args.logs.mkdir(parents=True, exist_ok=True)
        name = f"{case.manager}-{case.mix}-{case.limit_bytes >> 20}MiB-{run}.log"
        log = args.logs.absolute() / name
    return Options(
        manager=case.manager,
        tasks=args.tasks,
        mix_name=case.mix,
        mix=MIXES[case.mix],
        fast_tasks=default_fast_tasks(args.tasks),
        seed=args.seed,
        limit_bytes=case.limit_bytes,
        deadline_seconds=DEADLINE_SECONDS if case.manager == "recyclery" else args.peer_deadline,
        json=True,
        log=log,
    )


def make_progress(summary: Summary) -> str:
    """Say in one line how a storm went."""
    problems = ", ".join(summary.problems()) or "nothing killed, nothing left"
    return f"{summary.succeeded} of {summary.tasks} done in {summary.scraped_seconds:.0f} s; {problems}"


def main() -> int:
    """Run the storms, one at a time, print them side by side, and hold Recyclery's against the bounds."""
    args = parse_arguments(sys.argv[1:])
    try:
        find_requirements()
    except DemoError as error:
        cannot_run(str(error))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    runs: dict[Case, list[Summary]] = {}
    left_out: dict[str, str] = {}
    try:
        # Not in $TMPDIR: sockets live in here, and their whole path has but 107 bytes.
        with tempfile.TemporaryDirectory(prefix="ls-", dir="/tmp") as folder:
            run_all(args, Path(folder), runs, left_out)
    except KeyboardInterrupt:
        print_table(runs)
        print("leak_storm: interrupted; all is stopped", file=sys.stderr)
        return INTERRUPTED
    print_table(runs)
    for manager, reason in left_out.items():
        print(f"{manager} was left out: {reason}")
    storms = [
        {
            **dataclasses.asdict(case),
            "throughput_against_clean": ratio(runs, case),
            "runs": [dataclasses.asdict(summary) for summary in of_case],
        }
        for case, of_case in runs.items()
    ]
    figures = {"tasks": args.tasks, "seed": args.seed, "storms": storms, "left_out": left_out}
    goal = ratio_bounds(runs, GOAL_RATIO)
    return close("leak_storm", figures, required_bounds(runs), goal, ratio_samples(runs))


if __name__ == "__main__":
    sys.exit(main())
