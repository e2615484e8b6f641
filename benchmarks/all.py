"""all: every benchmark, or those named, one after the other, into one table and one file of JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.report import RESULTS, Entry, Report, begin_report, format_report
from benchmarks.running import INTERRUPTED, ROOT, find_benchmarks, interruptible, run_benchmark, say

# What is missing on this machine breaks no bound.
GOOD = ("passed", "cannot run")


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run them; return 1 where one failed or a required bound does not hold, 130 after Ctrl-C."""
    known = find_benchmarks(root)
    args = parse(arguments, known)
    report = begin_report(root, args.quick)
    with suppress(KeyboardInterrupt), interruptible():
        report.interrupted = True
        for number, name in enumerate(args.only):
            say(f"--- {name}, {number + 1} of {len(args.only)}")
            report.benchmarks[name] = run_benchmark(root, name, ["--quick"] * args.quick, echo=True)
        report.interrupted = False
    print(format_table(report), file=sys.stderr if args.json == "-" else sys.stdout)
    if args.json == "-":
        print(format_report(report), end="")
    elif args.json:
        Path(args.json).write_text(format_report(report))
    if report.interrupted:
        return INTERRUPTED
    return 0 if all(entry.result in GOOD for entry in report.benchmarks.values()) else 1


def parse(arguments: Sequence[str] | None, known: Sequence[str]) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench all", description=__doc__, epilog=f"The benchmarks: {', '.join(known)}."
    )
    parser.add_argument("--only", metavar="NAME,…", help="only these (default: all)")
    parser.add_argument("--quick", action="store_true", help="each of them as with its own --quick")
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write all of it to FILE, without FILE to stdout; `scripts/bench compare` reads it",
    )
    args = parser.parse_args(arguments)
    args.only = list(known) if args.only is None else args.only.split(",")
    if unknown := [name for name in args.only if name not in known]:
        parser.error(f"no benchmark: {', '.join(unknown)}; there are {', '.join(known)}")
    return args


def format_table(report: Report) -> str:
    """Return each benchmark with its bounds and medians below it."""
    rows = []
    for name, entry in report.benchmarks.items():
        load = f"{entry.load[0]:.1f}"
        rows.append(f"\n{name}: {entry.result} ({RESULTS[entry.result]}), {entry.seconds:.0f} s, load {load}")
        rows += [f"    | {line}" for line in entry.reason.splitlines() if entry.result != "bound"]
        rows += format_bounds(entry)
    if report.interrupted:
        rows.append("\ninterrupted: the others did not run")
    return "\n".join(rows)


def format_bounds(entry: Entry) -> list[str]:
    """Return a row for each bound, and for each median that has an interval."""
    rows = []
    for kind, bounds in (("required", entry.required), ("goal", entry.goal)):
        for name, row in bounds.items():
            verdict = "holds" if row.holds else "DOES NOT HOLD"
            rows.append(f"    {kind:8} {name:56} {row.value:>10g}  {row.bound:10} {verdict}")
    for name, sample in entry.samples.items():
        if len(sample.values) == 1:
            continue
        interval = f"{sample.low:g} to {sample.high:g} ({sample.coverage:.0%}, {len(sample.values)} values)"
        rows.append(f"    {'median':8} {name:56} {sample.median:>10g}  {interval}")
    return rows


if __name__ == "__main__":
    sys.exit(main())
