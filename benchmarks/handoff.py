"""handoff: a worker replaced again and again under a steady stream of tasks, beside a stop and a start.

A worker is a consumer from its connection's first question for a message, by Redis's MONITOR, until it is told
to leave, or to its last question, whichever is later.
Quiet windows as long as the replacements lie between those, in the same stream.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from benchmarks.contract import Bound, close
from benchmarks.handoff_app import LEAVES, STAMP, STAMPS
from benchmarks.handoff_meters import QUEUE, Consumers, Stream, streaming, uncovered, until_told_to_leave
from benchmarks.recycle_gap import percentile
from benchmarks.workers import answers, find_redis_server, running_supervisor, wait_until
from recyclery.control.client import NoSupervisor, ask_governor

POOL = "fast"
SETTLE_SECONDS = 1.0
PATIENCE_SECONDS = 30.0
TOO_MANY_WAIT = 100


@dataclass
class Windows:
    """When each kind of thing was done: (begin, end) by CLOCK_MONOTONIC, and by the clock of Redis."""

    spans: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    by_redis: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    @contextmanager
    def of(self, kind: str) -> Iterator[None]:
        """Note how long the block took."""
        begin, begin_by_redis = time.monotonic(), time.time()
        yield
        self.spans.setdefault(kind, []).append((begin, time.monotonic()))
        self.by_redis.setdefault(kind, []).append((begin_by_redis, time.time()))


def main() -> int:
    """Replace, and restart; then read what the tasks have noted."""
    parser = argparse.ArgumentParser(prog="scripts/bench handoff", description=__doc__)
    parser.add_argument("--replacements", type=int, default=100)
    parser.add_argument("--restarts", type=int, default=5, help="a stop and a start each, for comparison")
    parser.add_argument("--every-ms", type=float, default=5.0, help="between two tasks")
    parser.add_argument("--quick", action="store_true", help="3 replacements and a restart, a task each 20 ms")
    args = parser.parse_args()
    replacements, restarts = (3, 1) if args.quick else (args.replacements, args.restarts)
    every_ms = 20.0 if args.quick else args.every_ms
    windows = Windows()
    with running_redis_on_port() as port:
        url = f"redis://127.0.0.1:{port}/0"
        client, consumers = redis.Redis.from_url(url), Consumers(port)
        with (
            running_supervisor("benchmarks.handoff_app", url, "--pool", POOL) as (_, runtime_dir),
            streaming(url, every_ms / 1000) as stream,
        ):
            wait_until(lambda: is_settled(runtime_dir))
            time.sleep(SETTLE_SECONDS)
            for number in range(replacements):
                one_of_each(windows, runtime_dir, "replaced")
                print(f"replacement {number + 1} of {replacements}, {stream.sent} tasks sent", flush=True)
            for _ in range(restarts):
                one_of_each(windows, runtime_dir, "restarted")
            stream.stop()
            waiting: Any = client.llen(QUEUE)
            wait_for_the_last(client, stream.sent)
        consumers.close()
        stamps = read_stamps(client)
        told: Any = client.lrange(LEAVES, 0, -1)
    spans = until_told_to_leave(list(consumers.spans.values()), list(map(float, told)))
    if waiting > TOO_MANY_WAIT:
        print(
            f"{waiting} tasks waited at the end: the stream outran the worker, and the latencies tell of that"
        )
    figures = {"tasks": stream.sent, "waiting at the end": waiting}
    return report(windows, stream, stamps, spans, figures)


def wait_for_the_last(client: redis.Redis, sent: int) -> None:
    """Return when all tasks have run, or none has for long: what is missing then is lost."""
    seen: Any = -1
    deadline = 0.0
    while seen < sent and (seen < 0 or time.monotonic() < deadline):
        stamped: Any = client.llen(STAMPS)
        if stamped != seen:
            seen, deadline = stamped, time.monotonic() + PATIENCE_SECONDS
        time.sleep(0.1)
    # One that ran twice may come after the last.
    time.sleep(SETTLE_SECONDS)


def read_stamps(client: redis.Redis) -> list[tuple[int, float, float]]:
    """Return what the tasks have noted: number, when it was sent, when it began."""
    notes: Any = client.lrange(STAMPS, 0, -1)
    return [struct.unpack(STAMP, note) for note in notes]


def one_of_each(windows: Windows, runtime_dir: Path, kind: str) -> None:
    """Replace or restart the worker, until the former one is gone; then leave it alone for as long."""
    with windows.of(kind):
        (replace if kind == "replaced" else restart)(runtime_dir)
        wait_until(lambda: is_settled(runtime_dir))
    begin, end = windows.spans[kind][-1]
    with windows.of("quiet"):
        time.sleep(end - begin)


def replace(runtime_dir: Path) -> None:
    """Run `recyclery recycle`; raises CalledProcessError where it fails."""
    command = [sys.executable, "-m", "recyclery", "recycle", POOL]
    environment = {**os.environ, "RECYCLERY_RUNTIME_DIR": str(runtime_dir)}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def restart(runtime_dir: Path) -> None:
    """Have supervisord stop the worker and start it again."""
    slot = ask_governor(runtime_dir, "recycling", table=POOL)["slot"]
    control = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(runtime_dir / "supervisord.conf")]
    subprocess.run([*control, "restart", slot], check=True, stdout=subprocess.DEVNULL)


def is_settled(runtime_dir: Path) -> bool:
    """Tell whether the pool has one worker, which takes tasks."""
    try:
        pool = ask_governor(runtime_dir, "status")["pools"][POOL]
    except NoSupervisor:
        return False
    return bool(pool["state"] == "running" and pool["node"] and not pool["draining"])


def report(
    windows: Windows,
    stream: Stream,
    stamps: list[tuple[int, float, float]],
    spans: list[tuple[float, float]],
    figures: dict[str, object],
) -> int:
    """Print a table of the kinds of windows, and close."""
    print(f"\n{'':10} {'times':>6} {'no consumer ms':>15} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}")
    longest = {}
    for kind, times in windows.spans.items():
        latencies = sorted(
            began - sent for _, sent, began in stamps if any(begin <= sent < end for begin, end in times)
        )
        longest[kind] = max(uncovered(spans, begin, end)[0] for begin, end in windows.by_redis[kind])
        row = {
            "times": len(times),
            "seconds": round(sum(end - begin for begin, end in times), 1),
            "no consumer, longest ms": round(longest[kind] * 1000, 1),
            "p50 ms": round(percentile(latencies, 50) * 1000, 1),
            "p99 ms": round(percentile(latencies, 99) * 1000, 1),
            "max ms": round(latencies[-1] * 1000, 1),
        }
        figures[kind] = row
        cells = [row[name] for name in ("times", "no consumer, longest ms", "p50 ms", "p99 ms", "max ms")]
        widths = (6, 15, 8, 8, 8)
        print(f"{kind:10}", *(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))
    runs = Counter(number for number, _, _ in stamps)
    required = {
        "ms without a consumer, longest": Bound(round(longest["replaced"] * 1000, 1), "==", 0),
        "tasks lost": Bound(stream.sent - len(runs), "==", 0),
        "tasks run twice": Bound(sum(count - 1 for count in runs.values()), "==", 0),
    }
    return close("handoff", figures, required, required)


@contextmanager
def running_redis_on_port() -> Iterator[int]:
    """Run a Redis of our own on a port, for MONITOR tells connections apart only there; yield the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="rcb-") as folder:
        command = [
            find_redis_server(),
            "--bind",
            "127.0.0.1",
            "--port",
            str(port),
            "--save",
            "",
            "--dir",
            folder,
        ]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                wait_until(lambda: answers(redis.Redis(port=port)))
                yield port
            finally:
                server.terminate()


if __name__ == "__main__":
    sys.exit(main())
