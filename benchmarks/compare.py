"""compare: what got slower or larger for certain from A to B: two git revisions, or two files of `all --json`.

Each revision is checked out by itself and measured by its own `scripts/bench NAME`, in pairs of runs; the sides
take turns to go first. A figure counts as worse where the interval of B by A over all pairs lies wholly on the
wrong side of 1. One figure in 32 does so by chance after five pairs: a benchmark that shows one runs five more,
and then all ten must agree.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.report import RESULTS, Closing, Entry, Report, UnreadableReport, git, read_report
from benchmarks.running import INTERRUPTED, ROOT, checkout, interruptible, run_benchmark, say, set_up
from benchmarks.verdicts import Difference, compare_pairs, compare_reports, format_differences, list_figures

DEFAULT = ("throughput", "recycle_gap", "overhead", "policy_sim")
PAIRS = 5
# Of what a second series has confirmed: of ten pairs, all must agree.
CONFIRMED_COVERAGE = 0.99
UNUSABLE = 2


class CannotCompare(Exception):
    """There is nothing to compare; the message says why."""


@dataclass
class Comparison:
    """What differs, and what was not measured."""

    differences: list[Difference] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Benchmarks that A gives figures of, and B does not."""

    @property
    def worse(self) -> list[Difference]:
        """What got worse for certain."""
        return [each for each in self.differences if each.verdict == "worse"]


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Compare; return 1 where anything got worse for certain, 2 where nothing can be said, 130 after Ctrl-C."""
    args = parse(arguments)
    try:
        with interruptible():
            comparison = compare(args, root)
    except (CannotCompare, UnreadableReport) as error:
        print(f"compare: {error}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print("compare: interrupted; all is stopped and removed", file=sys.stderr)
        return INTERRUPTED
    print(format_differences(comparison.differences))
    for remark in comparison.remarks:
        print(remark)
    for name in comparison.lost:
        print(f"{name}: B gives no figures, and A does")
    print(f"\n{len(comparison.differences)} figures, {len(comparison.worse)} worse for certain")
    for each in comparison.worse:
        print(f"{each.word}: {each.benchmark}, {each.name}")
    return 1 if comparison.worse or comparison.lost else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line."""
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(
        prog="scripts/bench compare", description=lines[0], epilog=" ".join(lines[2:])
    )
    parser.add_argument("before", metavar="A", help="a git revision, or a file of `scripts/bench all --json`")
    parser.add_argument("after", metavar="B", help="the same")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of revisions, what to run (default: {' '.join(DEFAULT)}); of files, what to compare (all)",
    )
    parser.add_argument("--quick", action="store_true", help="each run with --quick")
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help=f"of runs (default: {PAIRS})")
    return parser.parse_args(arguments)


def compare(args: argparse.Namespace, root: Path) -> Comparison:
    """Compare what A and B are; raises CannotCompare and UnreadableReport."""
    files = [Path(name).is_file() for name in (args.before, args.after)]
    if all(files):
        return compare_files(read_report(Path(args.before)), read_report(Path(args.after)), args.names)
    if any(files):
        raise CannotCompare("a file and a revision were not measured side by side: name two of either kind")
    commits = [find_commit(root, name) for name in (args.before, args.after)]
    with ExitStack() as stack:
        trees = {}
        for side, commit in zip("AB", commits, strict=True):
            trees[side] = stack.enter_context(checkout(root, commit))
            say(f"{side} is {commit[:9]}: {git(root, 'log', '-1', '--format=%s', commit)}")
            set_up(trees[side])
        return measure(trees, args.names or DEFAULT, args.pairs, ["--quick"] * args.quick)


def find_commit(root: Path, name: str) -> str:
    """Return the commit that a revision names."""
    commit = git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if not commit:
        raise CannotCompare(f"{name} is neither a file nor a git revision")
    return commit


def compare_files(before: Report, after: Report, names: Sequence[str]) -> Comparison:
    """Compare two files by the intervals they hold."""
    if before.quick != after.quick:
        raise CannotCompare("one of the files was measured with --quick, the other was not")
    result = Comparison(compare_reports(before, after, names))
    if before.machine != after.machine:
        result.remarks.append(f"not the same machine: A {before.machine}, B {after.machine}")
    for side, report in (("A", before), ("B", after)):
        for name, entry in report.benchmarks.items():
            if entry.result != "passed" and (not names or name in names):
                result.remarks.append(describe_failure(side, "", name, entry))
    for name, entry in before.benchmarks.items():
        other = after.benchmarks.get(name)
        if other is not None and entry.figures and not other.figures and (not names or name in names):
            result.lost.append(name)
    if not result.differences and not result.lost:
        raise CannotCompare("the files have no figure in common")
    return result


def measure(trees: dict[str, Path], names: Sequence[str], pairs: int, options: list[str]) -> Comparison:
    """Run the benchmarks of two checkouts in pairs."""
    result = Comparison()
    for name in names:
        runs = run_pairs(trees, name, pairs, options, result.remarks)
        differences = compare_pairs(name, whole_pairs(runs))
        if any(each.verdict == "worse" for each in differences):
            say(f"{name}: something looks worse, {pairs} pairs more to make sure")
            runs += run_pairs(trees, name, pairs, options, result.remarks)
            differences = compare_pairs(name, whole_pairs(runs), CONFIRMED_COVERAGE)
        result.differences += differences
        result.remarks += list_unmatched(name, runs)
        if any(has_figures(before) for before, _ in runs) and not any(has_figures(after) for _, after in runs):
            result.lost.append(name)
    if not result.differences and not result.lost:
        raise CannotCompare("\n".join(["no run gave figures of both sides", *result.remarks]))
    return result


Pair = tuple[Entry, Entry]


def run_pairs(
    trees: dict[str, Path], name: str, pairs: int, options: list[str], remarks: list[str]
) -> list[Pair]:
    """Run one benchmark so often on both sides, the first to go alternating; note the runs that went wrong."""
    done = []
    for number in range(pairs):
        pair = {}
        for side in "AB" if number % 2 == 0 else "BA":
            pair[side] = entry = run_benchmark(trees[side], name, options)
            where = f"pair {number + 1} of {pairs}"
            say(f"{name}, {where}: {side} {entry.result}, {entry.seconds:.0f} s, load {entry.load[0]:.1f}")
            if entry.result != "passed":
                remarks.append(describe_failure(side, f", {where}", name, entry))
        done.append((pair["A"], pair["B"]))
    return done


def has_figures(entry: Entry) -> bool:
    """Tell whether a run came to its closing line."""
    return bool(entry.figures or entry.required)


def whole_pairs(runs: Sequence[Pair]) -> list[tuple[Closing, Closing]]:
    """Return the pairs both of whose runs gave figures."""
    return [(before, after) for before, after in runs if has_figures(before) and has_figures(after)]


def list_unmatched(name: str, runs: Sequence[Pair]) -> list[str]:
    """Say which figures only one side gives."""
    sides = [{figure for pair in runs for figure in list_figures(pair[side])} for side in (0, 1)]
    lines = []
    for side, own, other in (("A", sides[0], sides[1]), ("B", sides[1], sides[0])):
        if other and (only := sorted(own - other)):
            lines.append(f"{name}: only {side} gives {'; '.join(only)}")
    return lines


def describe_failure(side: str, where: str, name: str, entry: Entry) -> str:
    """Say how a run went wrong."""
    broken = [bound for bound, row in entry.required.items() if not row.holds]
    why = ", ".join(broken) if entry.result == "bound" else entry.reason.replace("\n", " | ")
    return f"{name}{where}: {side}: {RESULTS[entry.result]} (exit status {entry.exit_code}): {why}"


if __name__ == "__main__":
    sys.exit(main())
