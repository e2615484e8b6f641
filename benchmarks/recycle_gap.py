"""recycle_gap: from a child's last task to its successor's first, at 5 tasks per child, beside stock Celery."""

from __future__ import annotations

import argparse
import struct
import sys
import time
from typing import Any

from benchmarks.contract import Bound, close
from benchmarks.workers import make_client, make_sender, running_redis, running_worker

TASKS_PER_CHILD = 5


def main() -> int:
    """Measure at concurrency 1 and 3; stock Celery with fewer recycles, for it takes seconds for each."""
    parser = argparse.ArgumentParser(prog="scripts/bench recycle_gap", description=__doc__)
    parser.add_argument("--recycles", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="60 recycles")
    args = parser.parse_args()
    recycles = 60 if args.quick else args.recycles
    figures: dict[str, object] = {}
    required: dict[str, Bound] = {}
    goal: dict[str, Bound] = {}
    samples: dict[str, list[float]] = {}
    print(f"{'worker':12} {'concurrency':>11} {'gaps':>6} {'p50 ms':>9} {'p99 ms':>9} {'max ms':>9}")
    for concurrency in (1, 3):
        for kind, count in (("recyclery", recycles), ("celery", max(15, recycles // 20))):
            gaps = measure(kind, concurrency, count)
            row = {"p50": percentile(gaps, 50), "p99": percentile(gaps, 99), "max": gaps[-1]}
            cells = " ".join(f"{seconds * 1000:9.1f}" for seconds in row.values())
            print(f"{kind:12} {concurrency:>11} {len(gaps):>6} {cells}", flush=True)
            figures[f"{kind}, concurrency {concurrency}"] = {
                name: round(seconds * 1000, 1) for name, seconds in row.items()
            }
            if kind == "recyclery":
                samples[f"p50 ms at concurrency {concurrency}"] = [round(gap * 1000, 1) for gap in gaps]
                name = f"p99 ms at concurrency {concurrency}"
                required[name] = Bound(round(row["p99"] * 1000, 1), "<=", 300)
                goal[name] = Bound(round(row["p99"] * 1000, 1), "<=", 50)
    return close("recycle_gap", figures, required, goal, samples)


def measure(kind: str, concurrency: int, recycles: int) -> list[float]:
    """Return, sorted, the seconds from each child's last task to the next task that anybody started.

    A full queue waits all along, so that with one child at a time this is the time nobody worked; with more it
    is how long the child's own place stood empty, taken from the first task of the child that came next.
    """
    tasks = recycles * TASKS_PER_CHILD
    with running_redis() as url:
        client, sender = make_client(url), make_sender(url)
        for _ in range(tasks):
            sender.send_task("benchmarks.app.note", queue="bench")
        with running_worker(kind, url, concurrency, TASKS_PER_CHILD):
            while count(client) < tasks:
                time.sleep(0.1)
            notes: list[tuple[float, int]] = [struct.unpack("dq", note) for note in read_notes(client)]
    return gaps_between(notes, concurrency)


def count(client: Any) -> int:
    """Return how many tasks have noted themselves."""
    noted: int = client.llen("bench:notes")
    return noted


def read_notes(client: Any) -> list[bytes]:
    """Return what the tasks have noted."""
    notes: list[bytes] = client.lrange("bench:notes", 0, -1)
    return notes


def gaps_between(notes: list[tuple[float, int]], concurrency: int) -> list[float]:
    """Pair the n-th child to end with the n-th to begin after the first ones, and return the waits, sorted."""
    begun: dict[int, float] = {}
    ended: dict[int, float] = {}
    for when, pid in sorted(notes):
        begun.setdefault(pid, when)
        ended[pid] = when
    begins = sorted(begun.values())[concurrency:]
    ends = sorted(ended.values())[: len(begins)]
    return sorted(max(0.0, begin - end) for end, begin in zip(ends, begins, strict=True))


def percentile(ordered: list[float], percent: float) -> float:
    """Return the percentile of a sorted list, by nearest rank."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


if __name__ == "__main__":
    sys.exit(main())
