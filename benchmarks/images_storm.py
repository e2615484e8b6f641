"""images_storm: not a benchmark; the leak storm inside the slow image, under a container's memory limit."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from benchmarks.containers import HARDENED, READY_SECONDS, container, network, redis_beside
from recyclery_demo.options import default_fast_tasks
from recyclery_demo.plan import MIXES, plan_storm
from recyclery_demo.storm import Storm

MIX = "browsers"
# Celery's words for a task that raised.
FAILED = "raised unexpected"
POOLS = {"fast", "slow"}
SECONDS_PER_TASK, LEAST_SECONDS = 20.0, 300.0


@dataclass(frozen=True)
class Blown:
    """How a storm in a container went."""

    tasks: int
    succeeded: int
    failed: int
    lost: int
    duplicates: int
    oom_kills: int
    had_oom_kill: bool
    peak_bytes: int
    recycles: dict[str, int]
    reaped: int
    seconds: float
    stop_seconds: float
    exit: int
    errors: tuple[str, ...]
    """What the log says of tasks that raised."""


def blow(image: str, tasks: int, memory: str = "1g") -> Blown:
    """Send the storm to both pools in one container, as `recyclery demo` does to its cage, and stop it."""
    plan = plan_storm(MIXES[MIX], tasks, default_fast_tasks(tasks), seed=1)
    with (
        network() as net,
        redis_beside(net) as url,
        container(
            image, net, "--no-healthcheck", "--network-alias", "taxoffice", "--entrypoint", "python",
            command=("-m", "taxoffice", "--host", "0.0.0.0"),  # noqa: S104  # inside
        ),
        container(
            image, net, *HARDENED, "--memory", memory,
            *("-e", "REDIS_URL=redis://redis:6379/0", "-e", "SITE_URL=http://taxoffice:8600"),
        ) as workers,
    ):  # fmt: skip
        storm = Storm(url, secrets.token_hex(4), plan)
        wait_for_pools(storm)
        begun = time.monotonic()
        storm.start()
        try:
            wait_for_end(storm, begun + max(LEAST_SECONDS, SECONDS_PER_TASK * tasks))
        finally:
            storm.stop()
        seconds = time.monotonic() - begun
        status, peak = workers.status(), workers.peak_bytes()
        stop_seconds, code = workers.stop()
        tally = storm.read_final_counts().tally
        return Blown(
            tasks=tasks,
            succeeded=tally.succeeded,
            failed=tally.failed,
            lost=tally.lost,
            duplicates=tally.duplicates,
            oom_kills=status["container"]["oom_kills"],
            had_oom_kill=workers.had_oom_kill(),
            peak_bytes=peak,
            recycles=status["pools"]["slow"]["recycles"],
            reaped=status["browsers"]["reaped"],
            seconds=round(seconds, 1),
            stop_seconds=round(stop_seconds, 1),
            exit=code,
            errors=tuple(line for line in workers.printed().splitlines() if FAILED in line),
        )


def wait_for_pools(storm: Storm) -> None:
    """Return once both pools answer."""
    deadline = time.monotonic() + READY_SECONDS
    answered: set[str] = set()
    while not answered >= POOLS:
        answered |= storm.answering_pools()
        if time.monotonic() > deadline:
            raise SystemExit(f"no answer from {', '.join(sorted(POOLS - answered))}")


def wait_for_end(storm: Storm, deadline: float) -> None:
    """Return when every task was done or failed, or at the deadline."""
    while time.monotonic() < deadline:
        counts = storm.read_counts()
        scraped = counts.tally.succeeded + counts.tally.failed
        if scraped == len(storm.plan.scrapes) and counts.pinged == len(storm.plan.pings):
            return
        time.sleep(0.5)
