"""trace_overhead: how much longer runs take in a child that traces allocations, with memray and tracemalloc."""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from benchmarks.contract import Bound, close
from benchmarks.trace_overhead_app import LEFT_BYTES, SECONDS
from benchmarks.workers import count_held, make_client, make_sender, running_redis, running_worker, wait_until
from recyclery.leaks.trace_command import listening, receive_runs
from recyclery_worker import link
from recyclery_worker.tracing.sites import TracedRuns

APP = "benchmarks.trace_overhead_app"
TASKS = ("parse", "wait")
LONG_SECONDS = 300.0


@dataclass(frozen=True)
class Course:
    """The runs of one task: how long each ran, and how long its child was busy for each in all."""

    runs_seconds: tuple[float, ...]
    busy_seconds: float

    @property
    def run_seconds(self) -> float:
        """The median of them."""
        return statistics.median(self.runs_seconds)


def main() -> int:
    """Run each task with each tool that is there."""
    parser = argparse.ArgumentParser(prog="scripts/bench trace_overhead", description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="5 runs")
    args = parser.parse_args()
    runs = 5 if args.quick else args.runs
    tools = [*(["memray"] if importlib.util.find_spec("memray") else []), "tracemalloc"]
    figures: dict[str, object] = {}
    named: list[bool] = []
    waiting: dict[str, float] = {}
    samples: dict[str, list[float]] = {}
    for tool in tools:
        for task in TASKS:
            plain, traced, seen = compare(tool, f"{APP}.{task}", runs)
            times = round(traced.run_seconds / plain.run_seconds, 2)
            named.append(is_named(seen))
            figures[f"{task}, {tool}"] = {
                "seconds untraced": round(plain.run_seconds, 4),
                "seconds traced": round(traced.run_seconds, 4),
                "times as long": times,
                "seconds between runs": round(traced.busy_seconds - traced.run_seconds, 3),
                "kept bytes told": sum(round(site.bytes_per_run) for site in seen.sites),
            }
            for name, course in (("untraced", plain), ("traced", traced)):
                samples[f"{task}, {tool}: seconds {name}"] = [round(run, 4) for run in course.runs_seconds]
            print(f"{task:6} {tool:12} {figures[f'{task}, {tool}']}", flush=True)
            if task == "wait":
                waiting[tool] = times
    return close(
        "trace_overhead",
        figures,
        {
            "share of planted leaks named": Bound(sum(named) / len(named), ">=", 1.0),
            "a task that waits, times as long": Bound(max(waiting.values()), "<=", 1.5),
        },
        {f"a task that waits, {tools[0]}": Bound(waiting[tools[0]], "<=", 1.1)},
        samples,
    )


def compare(tool: str, task: str, runs: int) -> tuple[Course, Course, TracedRuns]:
    """Return the runs before a child traces and while it does, and what it saw."""
    with (
        python_without("memray" if tool == "tracemalloc" else None),
        running_redis() as url,
        running_worker("recyclery", url, 1, None, APP) as folder,
    ):
        sender, client = make_sender(url), make_client(url)

        def run(count: int) -> float:
            begun = time.monotonic()
            for _ in range(count):
                sender.send_task(task, queue="bench")
            wait_until(lambda: not client.llen("bench") and not count_held(client), LONG_SECONDS)
            return time.monotonic() - begun

        run(2)
        client.delete(SECONDS)
        plain = Course(busy_seconds=run(runs) / runs, runs_seconds=noted_runs(client))
        with listening(folder) as listener:
            pid = begin(
                folder, link.TraceRequest(task=task, runs=runs, warm_up=1, address=listener.getsockname())
            )
            run(1)
            client.delete(SECONDS)
            traced = Course(busy_seconds=run(runs) / runs, runs_seconds=noted_runs(client))
            *_, seen = receive_runs(listener, pid, LONG_SECONDS)
        return plain, traced, seen


def noted_runs(client: redis.Redis) -> tuple[float, ...]:
    """Return how long the runs took that were noted."""
    noted: Any = client.lrange(SECONDS, 0, -1)
    return tuple(map(float, noted))


def begin(folder: Path, order: link.TraceRequest) -> int:
    """Have a worker's child trace; return its pid."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.settimeout(10)
        peer.connect(str(link.worker_socket(folder, "bench")))
        peer.send(link.encode_message(order))
        reply = link.decode_reply(peer.recv(link.MAX_PACKET_BYTES))
    if not isinstance(reply, link.TracingChild):
        raise SystemExit(f"no child traces: {reply}")
    return reply.pid


def is_named(seen: TracedRuns) -> bool:
    """Tell whether the planted leak is the largest site, by its file and to a tenth of its size."""
    first = next(iter(seen.sites), None)
    return (
        first is not None
        and first.frames[0].file.endswith("trace_overhead_app.py")
        and abs(first.bytes_per_run - LEFT_BYTES) < LEFT_BYTES / 10
    )


@contextmanager
def python_without(module: str | None) -> Iterator[None]:
    """Have the Pythons that are started meanwhile not find a module."""
    if module is None:
        yield
        return
    before = os.environ.get("PYTHONPATH")
    with tempfile.TemporaryDirectory(prefix="rcb-") as folder:
        Path(folder, "sitecustomize.py").write_text(f"import sys\nsys.modules[{module!r}] = None\n")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, before)))
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before


if __name__ == "__main__":
    sys.exit(main())
