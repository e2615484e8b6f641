"""leak_storm: 150 scraping tasks, 30 % leave their browser, 5 MB each, 1 GiB; beside the same without leaks."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from benchmarks.contract import Bound, close

STORMS = {
    "leaking": [],
    "clean": ["--leak", "0", "--leave", "0"],
    "celery": ["--manager", "celery"],
}
COLUMNS = ("succeeded", "failed", "lost", "queued", "duplicates", "oom_kills", "orphans_reaped", "seconds")


def main() -> int:
    """Run the storm under Recyclery, without leaks under Recyclery, and under stock Celery if asked."""
    parser = argparse.ArgumentParser(prog="scripts/bench leak_storm", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 tasks in place of 150")
    parser.add_argument("--memory", default="1GiB", metavar="SIZE")
    parser.add_argument(
        "--manager", action="append", choices=["recyclery", "celery"], help="beside which peer (repeatable)"
    )
    args = parser.parse_args()
    tasks = 20 if args.quick else 150
    names = ["leaking", "clean", *(["celery"] if "celery" in (args.manager or []) else [])]
    runs = {name: run_storm(name, tasks, args.memory) for name in names}
    print(f"\n{'storm':10}" + "".join(f"{column:>15}" for column in COLUMNS))
    for name, run in runs.items():
        print(f"{name:10}" + "".join(f"{run[column]:>15}" for column in COLUMNS))
    leaking, clean = runs["leaking"], runs["clean"]
    ratio = round(throughput(leaking) / throughput(clean), 3)
    return close(
        "leak_storm",
        {"tasks": tasks, "memory": args.memory, "throughput_against_clean": ratio, "storms": runs},
        {
            "done": Bound(leaking["succeeded"], "==", tasks),
            "oom_kills": Bound(leaking["oom_kills"], "==", 0),
            "lost": Bound(leaking["lost"], "==", 0),
        },
        {"throughput against the storm without leaks": Bound(ratio, ">=", 0.95)},
    )


def run_storm(name: str, tasks: int, memory: str) -> dict[str, Any]:
    """Run one storm by `recyclery demo --json` and return its object; progress goes to standard error."""
    print(f"--- {name}", file=sys.stderr)
    command = [sys.executable, "-m", "recyclery", "demo", "--json", "--tasks", str(tasks), "--memory", memory]
    done = subprocess.run([*command, *STORMS[name]], stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout:
        raise SystemExit(f"the storm {name!r} did not run (exit {done.returncode})")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def throughput(run: dict[str, Any]) -> float:
    """Tasks done per second."""
    return float(run["succeeded"]) / float(run["seconds"])


if __name__ == "__main__":
    sys.exit(main())
