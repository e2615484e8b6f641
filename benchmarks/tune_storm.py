"""tune_storm: not a benchmark; `recyclery tune` on the example's scraping task, and the storm at each level."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from recyclery.demo.managers import Manager
from recyclery.demo.plan import MIXES, plan_storm
from recyclery.demo.requirements import find_requirements
from recyclery.demo.stage import Stage, limited_memory, set_stage, stop_workers

TASK = "app.infrastructure.celery.tasks.storm.scrape"
MIX = "browsers"
BY_HAND = (1, 2, 3, 4, 6)
# A machine is not always as fast: levels near the best one run once more in each further round.
ROUNDS, NEAR_SHARE = 3, 0.85
SCRAPES = 60
TUNE_SECONDS, STORM_SECONDS, READY_SECONDS = 3600.0, 1200.0, 120.0


@dataclass(frozen=True)
class StormRun:
    """What was recommended in a container of that size, and what each level does in the storm."""

    limit_gib: float
    recommended: int
    per_second: dict[int, float]
    """By concurrency, of the levels that ran in all rounds; the recommended one is among them."""
    given_up: dict[int, float]
    """Of those that ran only in the first, for they did much less than the best one there."""
    oom_kills: int
    """At the recommended one."""

    @property
    def share_of_best(self) -> float:
        """What the recommended level does, of what the best does."""
        return self.per_second[self.recommended] / max(self.per_second.values())

    def document(self) -> dict[str, object]:
        """Return it for the closing line."""
        return dataclasses.asdict(self)


class Storm(NamedTuple):
    """One storm, or several added up."""

    done: int
    seconds: float
    oom_kills: int

    @property
    def per_second(self) -> float:
        """Scrapes done each second."""
        return self.done / self.seconds


def tune_storm(limit_bytes: int, folder: Path) -> StormRun:
    """Tune in a cgroup of that limit, then let the storm blow there at levels as somebody would try by hand."""
    recommended = ask_tune(limit_bytes, folder)
    first = {level: blow(level, limit_bytes, folder) for level in sorted({*BY_HAND, recommended})}
    most = max(storm.per_second for storm in first.values())
    near = [level for level, storm in first.items() if storm.per_second >= NEAR_SHARE * most]
    storms = {level: [first[level]] for level in sorted({*near, recommended})}
    for number in range(1, ROUNDS):
        # Up and down: what changes slowly falls on all levels alike.
        for level in sorted(storms, reverse=number % 2 == 1):
            storms[level].append(blow(level, limit_bytes, folder))
    return StormRun(
        limit_gib=limit_bytes / (1 << 30),
        recommended=recommended,
        per_second={level: add_up(each).per_second for level, each in storms.items()},
        given_up={level: storm.per_second for level, storm in first.items() if level not in storms},
        oom_kills=add_up(storms[recommended]).oom_kills,
    )


def ask_tune(limit_bytes: int, folder: Path) -> int:
    """Return the concurrency that `recyclery tune` recommends."""
    calls, run = folder / "scrapes", folder / f"storm-{limit_bytes >> 20}.jsonl"
    calls.write_text("".join(f"{json.dumps(call)}\n" for call in list_calls()))
    words = ("tune", "--pool", "slow", "--task", TASK, "--args", str(calls), "--out", str(run), "--json")
    tune = Manager("recyclery tune", (sys.executable, "-m", "recyclery", *words), stop_seconds=60.0)
    log = folder / f"storm-{limit_bytes >> 20}.log"
    with caged(tune, limit_bytes, log) as stage:
        status = stage.cage.wait(TUNE_SECONDS)
    text = log.read_text()
    if status != 0:
        raise SystemExit(f"recyclery tune ended with {status}:\n{text[-2000:]}")
    answer = json.loads(text.strip().splitlines()[-1])
    if answer["recommended"] is None:
        raise SystemExit(f"recyclery tune recommends nothing: {answer['explanation']}")
    for level in answer["levels"]:
        print(json.dumps(level), file=sys.stderr, flush=True)
    print(answer["explanation"], *answer["caveats"], sep="\n", file=sys.stderr, flush=True)
    return int(answer["recommended"]["concurrency"])


def list_calls() -> Iterator[dict[str, object]]:
    """Yield the storm's scrapes as `--args` has them."""
    for scrape in plan_storm(MIXES[MIX], SCRAPES, 0, seed=1).scrapes:
        yield {
            "args": [scrape.number, "tuned"],
            "kwargs": {"forget": scrape.forget, "leave_bytes": scrape.leave_bytes},
        }


def add_up(storms: Sequence[Storm]) -> Storm:
    """Return them as one."""
    return Storm(*(sum(column) for column in zip(*storms, strict=True)))


def blow(concurrency: int, limit_bytes: int, folder: Path) -> Storm:
    """Let the storm blow at a concurrency."""
    # One container with the slow pool alone, as the tuning had it.
    slow = ("env", "CELERY_WORKER_NAME=slow", f"CELERY_CONCURRENCY={concurrency}")
    manager = Manager("recyclery", (*slow, sys.executable, "-m", "recyclery", "run"), stop_seconds=40.0)
    with caged(manager, limit_bytes, folder / "workers.log") as stage:
        wait_for_slow(stage)
        begun = time.monotonic()
        stage.storm.start()
        done = failed = 0
        while done + failed < SCRAPES and time.monotonic() - begun < STORM_SECONDS:
            if stage.cage.wait(0.5) is not None:
                break
            tally = stage.storm.read_counts().tally
            done, failed = tally.succeeded, tally.failed
        took = time.monotonic() - begun
        stage.storm.stop()
        stop_workers(stage)
        kills = stage.meter.oom_kills() or 0
    print(f"storm at {concurrency}: {done} in {took:.0f} s, {kills} OOM kills", file=sys.stderr, flush=True)
    return Storm(done, took, kills)


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
