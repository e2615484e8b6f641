"""throughput: no-op tasks a second at concurrency 2 against stock Celery, in alternating pairs."""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from benchmarks.contract import Bound, close
from benchmarks.workers import count_held, make_client, make_sender, running_redis, running_worker


def main() -> int:
    """Run the pairs without a limit, and a shorter series at 10 tasks per child."""
    parser = argparse.ArgumentParser(prog="scripts/bench throughput", description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="2000 tasks, 3 pairs")
    args = parser.parse_args()
    tasks, pairs = (2_000, 3) if args.quick else (args.tasks, args.pairs)
    ratios, rates = compare(tasks, pairs, None)
    recycling, recycling_rates = compare(max(200, tasks // 40), pairs, 10)
    ratio, name = round(statistics.median(ratios), 3), "median ratio to stock Celery"
    recycling_name = "ratio at 10 tasks per child"
    return close(
        "throughput",
        {
            "ratios": ratios,
            "rates": rates,
            recycling_name: round(statistics.median(recycling), 2),
            "rates at 10 tasks per child": recycling_rates,
        },
        {name: Bound(ratio, ">=", 1.0, ratios)},
        {name: Bound(ratio, ">=", 1.2)},
        {name: ratios, recycling_name: recycling},
    )


def compare(tasks: int, pairs: int, max_tasks: int | None) -> tuple[list[float], dict[str, list[int]]]:
    """Return ours / stock for each pair, and the tasks a second of every run; the first to go alternates."""
    rates: dict[str, list[int]] = {"recyclery": [], "celery": []}
    for number in range(pairs):
        order = ("recyclery", "celery") if number % 2 == 0 else ("celery", "recyclery")
        for kind in order:
            rates[kind].append(round(measure(kind, tasks, max_tasks)))
        ours, stock = rates["recyclery"][-1], rates["celery"][-1]
        limit = max_tasks or "no limit"
        print(f"pair {number + 1}, {limit}: ours {ours}/s, stock {stock}/s, {ours / stock:.3f}", flush=True)
    return [round(a / b, 3) for a, b in zip(rates["recyclery"], rates["celery"], strict=True)], rates


def measure(kind: str, tasks: int, max_tasks: int | None) -> float:
    """Return tasks a second from the first taken from a full queue to the last done."""
    with running_redis() as url:
        client, sender = make_client(url), make_sender(url)
        with running_worker(kind, url, 2, max_tasks):
            sender.control.cancel_consumer("bench", reply=True)
            for _ in range(tasks):
                sender.send_task("benchmarks.app.noop", queue="bench")
            begun = time.monotonic()
            sender.control.add_consumer("bench", reply=True)
            while client.llen("bench") or count_held(client):
                time.sleep(0.01)
            return tasks / (time.monotonic() - begun)


if __name__ == "__main__":
    sys.exit(main())
