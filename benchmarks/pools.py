"""pools: how long `high` waits while `default` has bursts of long tasks, with two workers and with three.

Each setup runs under `recyclery run` on a Redis of its own, with the same tasks at the same times.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from celery import Celery

from benchmarks.browsers_meters import MIB, pss_bytes
from benchmarks.contract import Bound, close
from benchmarks.pools_app import STAMP, STAMPS
from benchmarks.recycle_gap import percentile
from benchmarks.workers import make_client, running_redis, running_supervisor, wait_until
from recyclery.control.client import NoSupervisor, ask_governor

HIGH_EVERY_SECONDS, HIGH_SECONDS = 0.1, 0.02
BURST_EVERY_SECONDS, BURST_TASKS, DEFAULT_SECONDS = 15.0, 12, 1.0
START_SECONDS, END_SECONDS = 60.0, 120.0


@dataclass(frozen=True)
class Pool:
    """One pool of a setup."""

    queues: tuple[str, ...]
    concurrency: int
    max_tasks_per_child: int = 100


@dataclass(frozen=True)
class Came:
    """What came of one setup: the seconds that tasks waited, by queue, and the PSS of all processes."""

    waited: Mapping[str, list[float]]
    pss_bytes: int


Setup = Mapping[str, Pool]
SLOW = Pool(("low",), 1, 10)
SETUPS: Mapping[str, Setup] = {
    "fast 3, slow 1": {"fast": Pool(("high", "default"), 3), "slow": SLOW},
    "fast 4, slow 1": {"fast": Pool(("high", "default"), 4), "slow": SLOW},
    "high 1, default 2, slow 1": {"high": Pool(("high",), 1), "default": Pool(("default",), 2), "slow": SLOW},
}
TWO, _, THREE = SETUPS


def main() -> int:
    """Run the setups, one after the other."""
    parser = argparse.ArgumentParser(prog="scripts/bench pools", description=__doc__)
    parser.add_argument("--bursts", type=int, default=4, metavar="N")
    parser.add_argument("--quick", action="store_true", help="one burst; two workers and three")
    args = parser.parse_args()
    chosen = (TWO, THREE) if args.quick else tuple(SETUPS)
    bursts = 1 if args.quick else args.bursts
    columns = " ".join(f"{name:>6}" for name in ("p50", "p95", "max") * 2)
    print(f"{'':26} {'high waits, s':>20} {'default waits, s':>20} {'memory':>8}")
    print(f"{'workers and their places':26} {columns} {'MiB':>8}")
    came = {}
    for name in chosen:
        came[name] = run(SETUPS[name], bursts)
        print(describe(name, came[name]), flush=True)
    figures = {
        name: {queue: quantiles(waited) for queue, waited in one.waited.items()} | {"pss_bytes": one.pss_bytes}
        for name, one in came.items()
    }
    share = quantiles(came[THREE].waited["high"])[1] / quantiles(came[TWO].waited["high"])[1]
    required = {"p95 of high with three, of that with two": Bound(round(share, 3), "<=", 0.2)}
    return close("pools", figures, required, {})


def run(setup: Setup, bursts: int) -> Came:
    """Send the tasks at their times to a setup, and wait until all have begun."""
    with (
        written(setup) as config,
        running_redis() as url,
        running_supervisor("benchmarks.pools_app", url, "--config", config) as (supervisor, runtime_dir),
    ):
        wait_until(lambda: is_ready(runtime_dir, setup), START_SECONDS)
        expected = send(Celery("sender", broker=url), bursts)
        client = make_client(url)

        def stamps(queue: str) -> list[Any]:
            noted: Any = client.lrange(STAMPS.format(queue), 0, -1)
            return list(noted)

        wait_until(lambda: all(len(stamps(queue)) == count for queue, count in expected.items()), END_SECONDS)
        processes = [supervisor, *(child.pid for child in psutil.Process(supervisor).children(recursive=True))]
        waited = {}
        for queue in expected:
            pairs = [struct.unpack(STAMP, stamp) for stamp in stamps(queue)]
            waited[queue] = sorted(began - sent for sent, began in pairs)
        return Came(waited, pss_bytes(processes))


def send(sender: Celery, bursts: int) -> dict[str, int]:
    """Send a stream of short tasks and bursts of long ones; return how many went to each queue."""
    begin, every = time.monotonic(), round(BURST_EVERY_SECONDS / HIGH_EVERY_SECONDS)
    for number in range(bursts * every):
        time.sleep(max(0.0, begin + number * HIGH_EVERY_SECONDS - time.monotonic()))
        if number % every == every // 10:
            for _ in range(BURST_TASKS):
                send_one(sender, "default", DEFAULT_SECONDS)
        send_one(sender, "high", HIGH_SECONDS)
    return {"high": bursts * every, "default": bursts * BURST_TASKS}


def send_one(sender: Celery, queue: str, seconds: float) -> None:
    """Send a task with the time it is sent at."""
    sender.send_task("benchmarks.pools_app.work", (queue, time.monotonic(), seconds), queue=queue)


@contextmanager
def written(setup: Setup) -> Iterator[str]:
    """Write a setup's configuration; yield the file's path."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        for name, pool in setup.items():
            file.write(
                f"[pools.{name}]\nqueues = {json.dumps(pool.queues)}\nconcurrency = {pool.concurrency}\n"
                f"max_tasks_per_child = {pool.max_tasks_per_child}\n"
            )
        file.flush()
        yield file.name


def is_ready(runtime_dir: Path, setup: Setup) -> bool:
    """Tell whether each pool has a worker that takes tasks."""
    try:
        pools = ask_governor(runtime_dir, "status")["pools"]
    except NoSupervisor:
        return False
    return all(pools[name]["state"] == "running" and pools[name]["node"] for name in setup)


def quantiles(waited: list[float]) -> tuple[float, float, float]:
    """Return the median, the 95 % quantile and the longest, in seconds."""
    return round(percentile(waited, 50), 3), round(percentile(waited, 95), 3), round(waited[-1], 3)


def describe(name: str, came: Came) -> str:
    """Return a setup's row."""
    times = (f"{seconds:6.2f}" for queue in ("high", "default") for seconds in quantiles(came.waited[queue]))
    return f"{name:26} {' '.join(times)} {came.pss_bytes / MIB:8.0f}"


if __name__ == "__main__":
    sys.exit(main())
