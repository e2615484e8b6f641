"""images: the size of the Docker images, how soon they start and stop, and the leak storm in the slow one."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.containers import (
    BASE_IMAGE,
    HARDENED,
    READY_SECONDS,
    build,
    container,
    network,
    redis_beside,
    size_bytes,
)
from benchmarks.contract import Bound, cannot_run, close
from benchmarks.images_storm import Blown, blow

MB = 1_000_000
TASKS, QUICK_TASKS = 150, 6
IMAGES = {
    "recyclery:fast": ("Dockerfile.fast", "--target", "recyclery"),
    "recyclery:slow": ("Dockerfile.slow", "--target", "recyclery"),
    "recyclery-backoffice:fast": ("Dockerfile.fast",),
    "recyclery-backoffice:slow": ("Dockerfile.slow",),
}
STARTED = ("recyclery-backoffice:fast", "recyclery-backoffice:slow")


def main() -> int:
    """Build all images, start two of them some times, and send the storm."""
    parser = argparse.ArgumentParser(prog="scripts/bench images", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="starts of each image (default: 5)")
    parser.add_argument("--tasks", type=int, default=TASKS, metavar="N", help=f"of the storm ({TASKS})")
    parser.add_argument("--memory", default="1g", metavar="SIZE", help="of the storm's container (1g)")
    parser.add_argument("--quick", action="store_true", help=f"one start, {QUICK_TASKS} tasks; building apart")
    args = parser.parse_args()
    if shutil.which("docker") is None:
        cannot_run("there is no docker command")
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode != 0:
        cannot_run("no Docker daemon answers")
    # Every container is removed on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    runs, tasks = (1, QUICK_TASKS) if args.quick else (args.runs, args.tasks)
    sizes = measure_sizes()
    starts = {image: list(measure_starts(image, runs)) for image in STARTED}
    print_starts(starts)
    storm = blow(STARTED[1], tasks, args.memory)
    print_storm(storm)
    figures = {
        "base_image": BASE_IMAGE,
        "size_bytes": sizes,
        "start_stop_seconds": starts,
        "storm": dataclasses.asdict(storm),
    }
    samples = {
        f"{image}: {what}": list(column)
        for image, pairs in starts.items()
        for what, column in zip(("ready after s", "stopped in s"), zip(*pairs, strict=True), strict=True)
    }
    return close("images", figures, bounds(storm), {}, samples)


def measure_sizes() -> dict[str, int]:
    """Build each image, and print its size."""
    sizes = {BASE_IMAGE: 0}
    for image, (dockerfile, *options) in IMAGES.items():
        print(f"building {image}", file=sys.stderr, flush=True)
        sizes[build(dockerfile, image, *options)] = size_bytes(image)
    sizes[BASE_IMAGE] = size_bytes(BASE_IMAGE)
    print(f"{'image':28} {'MB':>6}")
    for image, size in sizes.items():
        print(f"{image:28} {size / MB:6.0f}")
    return sizes


def measure_starts(image: str, runs: int) -> Iterator[tuple[float, float]]:
    """Yield the seconds from `docker run` to a worker that takes tasks, and those that stopping took."""
    pool = image.rpartition(":")[2]
    variables = ("-e", "REDIS_URL=redis://redis:6379/0", "-e", f"CELERY_WORKER_NAME={pool}")
    with network() as net, redis_beside(net):
        for run in range(runs):
            print(f"{image}: start {run + 1} of {runs}", file=sys.stderr, flush=True)
            with container(image, net, *HARDENED, "--memory", "1g", *variables) as worker:
                while "ready." not in worker.printed():
                    if time.monotonic() > worker.asked_at + READY_SECONDS:
                        raise SystemExit(f"{image} is not ready after {READY_SECONDS:g} s")
                    time.sleep(0.05)
                ready = time.monotonic() - worker.asked_at
                yield round(ready, 2), round(worker.stop()[0], 2)


def print_starts(starts: dict[str, list[tuple[float, float]]]) -> None:
    """Print how soon each image was ready and stopped: lowest, median, highest."""
    print(f"\n{'image':28} {'ready after s':>20} {'stopped in s':>20}")
    for image, pairs in starts.items():
        cells = (
            f"{min(column):.1f} / {statistics.median(column):.1f} / {max(column):.1f}"
            for column in zip(*pairs, strict=True)
        )
        print(f"{image:28} " + " ".join(f"{cell:>20}" for cell in cells))


def print_storm(storm: Blown) -> None:
    """Print how the storm went."""
    print(
        f"\nstorm in a container: {storm.succeeded} of {storm.tasks} done in {storm.seconds:g} s, "
        f"{storm.failed} failed, {storm.duplicates} twice, {storm.lost} lost, {storm.oom_kills} OOM kills, "
        f"{storm.peak_bytes / (1 << 20):.0f} MiB at most, {storm.reaped} browsers reaped; "
        f"stopped in {storm.stop_seconds:g} s with {storm.exit}"
    )


def bounds(storm: Blown) -> dict[str, Bound]:
    """Return what the storm in the container is held to."""
    return {
        "storm tasks done": Bound(storm.succeeded, "==", storm.tasks),
        "storm tasks lost": Bound(storm.lost, "==", 0),
        "OOM kills": Bound(max(storm.oom_kills, int(storm.had_oom_kill)), "==", 0),
        "exit of PID 1": Bound(storm.exit, "==", 0),
    }


if __name__ == "__main__":
    sys.exit(main())
