"""tune_storm: not a benchmark; `recyclery tune` on the example's scraping task, and the storm at each level."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recyclery.demo.managers import Manager
from recyclery.demo.plan import MIXES, plan_storm
from recyclery.demo.requirements import find_requirements
from recyclery.demo.stage import Stage, limited_memory, set_stage, stop_workers

TASK = "app.infrastructure.celery.tasks.storm.scrape"
MIX = "browsers"
BY_HAND = (1, 2, 3, 4, 6)
SCRAPES = 60
TUNE_SECONDS, STORM_SECONDS, READY_SECONDS = 3600.0, 1200.0, 120.0


@dataclass(frozen=True)
class StormRun:
    """What was recommended in a container of that size, and what each level does in the storm."""

    limit_gib: float
    recommended: int
    per_second: dict[int, float]
    """By concurrency; the recommended one is among them."""
    oom_kills: int
    """At the recommended one."""

    @property
    def share_of_best(self) -> float:
        """What the recommended level does, of what the best does."""
        return self.per_second[self.recommended] / max(self.per_second.values())

    def document(self) -> dict[str, object]:
        """Return it for the closing line."""
        return dataclasses.asdict(self)


def tune_storm(limit_bytes: int, folder: Path) -> StormRun:
    """Tune in a cgroup of that limit, then let the storm blow there at levels as somebody would try by hand."""
    calls, run = folder / "scrapes", folder / f"storm-{limit_bytes >> 20}.jsonl"
    plan = plan_storm(MIXES[MIX], SCRAPES, 0, seed=1)
    calls.write_text(
        "".join(
            json.dumps(
                {
                    "args": [scrape.number, "tuned"],
                    "kwargs": {"forget": scrape.forget, "leave_bytes": scrape.leave_bytes},
                }
            )
            + "\n"
            for scrape in plan.scrapes
        )
    )
    words = (
        "tune",
        "--pool",
        "slow",
        "--task",
        TASK,
        "--args",
        str(calls),
        "--out",
        str(run),
        "--repeats",
        "2",
    )
    tune = Manager("recyclery tune", (sys.executable, "-m", "recyclery", *words, "--json"), stop_seconds=60.0)
    log = folder / f"storm-{limit_bytes >> 20}.log"
    with caged(tune, limit_bytes, log) as stage:
        status = stage.cage.wait(TUNE_SECONDS)
        if status != 0:
            raise SystemExit(f"recyclery tune ended with {status}:\n{log.read_text()[-2000:]}")
    answer = json.loads(log.read_text().strip().splitlines()[-1])
    if answer["recommended"] is None:
        raise SystemExit(f"recyclery tune recommends nothing: {answer['reason']}")
    recommended = answer["recommended"]["concurrency"]
    storms = {level: blow(level, limit_bytes, folder) for level in sorted({*BY_HAND, recommended})}
    return StormRun(
        limit_gib=limit_bytes / (1 << 30),
        recommended=recommended,
        per_second={level: per_second for level, (per_second, _) in storms.items()},
        oom_kills=storms[recommended][1],
    )


def blow(concurrency: int, limit_bytes: int, folder: Path) -> tuple[float, int]:
    """Let the storm blow at a concurrency; return the scrapes done each second, and the OOM kills."""
    # One container with the slow pool alone, as the tuning had it.
    slow = ("env", "CELERY_WORKER_NAME=slow", f"CELERY_CONCURRENCY={concurrency}")
    manager = Manager("recyclery", (*slow, sys.executable, "-m", "recyclery", "run"), stop_seconds=40.0)
    with caged(manager, limit_bytes, folder / "workers.log") as stage:
        wait_for_slow(stage)
        begun = time.monotonic()
        stage.storm.start()
        done = 0
        while done < SCRAPES and time.monotonic() - begun < STORM_SECONDS and stage.cage.wait(0.5) is None:
            done = stage.storm.read_counts().tally.succeeded
        took = time.monotonic() - begun
        stage.storm.stop()
        stop_workers(stage)
        kills = stage.meter.oom_kills() or 0
    print(f"storm at {concurrency}: {done} in {took:.0f} s, {kills} OOM kills", file=sys.stderr, flush=True)
    return done / took, kills


@contextmanager
def caged(manager: Manager, limit_bytes: int, log: Path) -> Iterator[Stage]:
    """Run a command in a cgroup, with the example's services beside it."""
    requirements = find_requirements()
    plan = plan_storm(MIXES[MIX], SCRAPES, 0, seed=1)
    log.unlink(missing_ok=True)
    with (
        limited_memory(limit_bytes, lambda text: print(text, file=sys.stderr)) as cgroup,
        set_stage(requirements, manager, plan, cgroup=cgroup, limit_bytes=limit_bytes, log=log) as stage,
    ):
        yield stage


def wait_for_slow(stage: Stage) -> None:
    """Return once the worker answers."""
    deadline = time.monotonic() + READY_SECONDS
    while "slow" not in stage.storm.answering_pools():
        if time.monotonic() > deadline or stage.cage.wait(0.1) is not None:
            raise SystemExit(f"the workers do not start: {stage.log.read_text()[-2000:]}")
