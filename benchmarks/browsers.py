"""browsers: what Chrome's flags cost, what a kept browser saves, how soon what is killed is gone."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.browsers_flags import make_document, measure_flags, print_flags, ratio_samples
from benchmarks.browsers_kills import Aftermath, Kills, measure_kills, print_kills
from benchmarks.browsers_meters import MIB
from benchmarks.browsers_pages import KEPT, NEW, TIGHT, Curve, cycle_ratios, measure_pages, print_pages
from benchmarks.browsers_site import running_site
from benchmarks.browsers_stage import private_temporary
from benchmarks.contract import Bound, cannot_run, close
from recyclery_worker.browser.context import DIR_VARIABLE
from recyclery_worker.browser.driver import BrowserMissing, find_browser

PARTS = ("flags", "pages", "kills")
LEAST_RATIO = 2.0
KEPT_TO_NEW = "pages a minute, kept to new"
GONE_SECONDS, GOAL_SECONDS = 2.0, 1.0


def main() -> int:
    """Run the parts asked for and close with their bounds."""
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    chance = random.Random(args.seed)  # noqa: S311 - repeatable on purpose
    try:
        chrome = find_browser().version
    except BrowserMissing as error:
        cannot_run(str(error))
    figures: dict[str, Any] = {
        "chrome": chrome,
        "cores": os.cpu_count(),
        "seed": args.seed,
        "load": [round(os.getloadavg()[0], 1)],
    }
    required: dict[str, Bound] = {}
    goal: dict[str, Bound] = {}
    samples: dict[str, list[float]] = {}
    os.environ[DIR_VARIABLE] = ""
    with private_temporary() as temporary, running_site() as site:
        if "flags" in args.part:
            readings = measure_flags(f"{site}/heavy", args.rounds, args.quick, chance, say)
            print_flags(readings)
            figures["flags"] = make_document(readings)
            samples |= ratio_samples(readings)
        if "pages" in args.part:
            curves, limits = measure_pages(f"{site}/short", args.pages, chance, say)
            print_pages(curves, limits)
            figures["pages"] = {name: curve.document() for name, curve in curves.items()}
            samples[KEPT_TO_NEW] = cycle_ratios(curves[NEW], curves[KEPT])
            required |= bound_pages(curves, limits)
        if "kills" in args.part:
            kills, aftermath = measure_kills(temporary, f"{site}/short", args.kills, chance, say)
            print_kills(kills, aftermath)
            figures["kills"] = {name: each.document() for name, each in kills.items()}
            figures["files left"] = aftermath.files
            required |= bound_kills(kills, GONE_SECONDS) | bound_aftermath(kills, aftermath)
            goal |= bound_kills(kills, GOAL_SECONDS)
    figures["load"].append(round(os.getloadavg()[0], 1))
    return close("browsers", figures, required, goal, samples)


def parse() -> argparse.Namespace:
    """Return the command line, with --quick carried out."""
    parser = argparse.ArgumentParser(prog="scripts/bench browsers", description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="of the flags (default: 7)")
    parser.add_argument("--pages", type=int, default=200, metavar="N", help="in each way (default: 200)")
    parser.add_argument(
        "--kills", type=int, default=200, metavar="N", help="of each of 6 victims (default: 200)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of every order (default: 1)")
    parser.add_argument(
        "--quick", action="store_true", help="one round of three sets of flags, 4 pages, 1 kill of each"
    )
    args = parser.parse_args()
    args.part = args.part or list(PARTS)
    if args.quick:
        args.rounds, args.pages, args.kills = 1, 4, 1
    return args


def bound_pages(curves: Mapping[str, Curve], limits: Mapping[str, int]) -> dict[str, Bound]:
    """Return what a kept browser has to be worth, and the most it may hold: its limit, and one page more."""
    ratio = curves[KEPT].pages_per_minute / curves[NEW].pages_per_minute
    spread = curves[NEW].spread_bytes
    return {
        KEPT_TO_NEW: Bound(round(ratio, 2), ">=", LEAST_RATIO),
        **{
            f"most MiB, {name}": Bound(
                round(curves[name].most_bytes / MIB, 1), "<=", round((limits[name] + spread) / MIB, 1)
            )
            for name in (KEPT, TIGHT)
        },
    }


def bound_kills(kills: Mapping[str, Kills], seconds: float) -> dict[str, Bound]:
    """Return the bound on the time that a session of each kind takes to be gone."""
    return {
        f"gone p99 s: {name}": Bound(float(each.document()["p99 s"]), "<=", seconds)
        for name, each in kills.items()
    }


def bound_aftermath(kills: Mapping[str, Kills], aftermath: Aftermath) -> dict[str, Bound]:
    """Return that nothing is left, and nothing touched that is not ours."""
    return {
        "sessions never gone": Bound(sum(each.never for each in kills.values()), "==", 0),
        "files left": Bound(sum(aftermath.files.values()), "==", 0),
        "stranger's Chrome untouched": Bound(int(aftermath.control_alive), "==", 1),
    }


def say(line: str) -> None:
    """Tell how far it is, apart from the table."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
