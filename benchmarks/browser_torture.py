"""browser_torture: sessions with every mishap mixed, in 1 GiB; every one ends as it must, nothing is left."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.browsers_meters import MIB, count_kinds
from benchmarks.browsers_site import running_site
from benchmarks.browsers_stage import APP, QUEUE, Stage, private_temporary, running_stage
from benchmarks.browsers_torture_plan import KINDS, Session, judge, make_plan
from benchmarks.browsers_torture_state import State, observe, say_state
from benchmarks.contract import Bound, cannot_run, close
from benchmarks.workers import make_client
from recyclery.common.units import format_bytes, parse_size
from recyclery.sandbox.cage import CannotCageError
from recyclery_demo.cage import make_cage_cgroup
from recyclery_demo.cgroups import SandboxCgroup

CONCURRENCY = 2
TASKS_PER_CHILD = 10
LIMIT = "1GiB"
# What Python keeps, more or less of it by chance.
FLOOR_MARGIN_BYTES = 32 * MIB
# The governor, the worker's main process, and its children; a successor that stands by is one more.
OWN_PROCESSES = 2 + CONCURRENCY
# No session may take longer on the average; then the torture is given up.
SESSION_SECONDS = 60.0
PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class Ended:
    """How the torture ended."""

    before: State
    after: State
    wrong: dict[str, str]
    missing: int
    runs: dict[str, int]
    oom_kills: int
    peak_bytes: int | None
    seconds: float
    status: int


def main() -> int:
    """Run it and hold its end against what it must be."""
    parser = argparse.ArgumentParser(prog="scripts/bench browser_torture", description=__doc__)
    parser.add_argument("--sessions", type=int, default=200, metavar="N")
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="repeats a mix (default: random)")
    parser.add_argument("--memory", type=parse_size, default=parse_size(LIMIT), metavar="SIZE")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the supervisor's log in this file")
    parser.add_argument("--quick", action="store_true", help="a session of each kind")
    args = parser.parse_args()
    sessions = len(KINDS) if args.quick else args.sessions
    seed = random.SystemRandom().randrange(1 << 32) if args.seed is None else args.seed
    # Every `finally` on the way out is run; also where a shell started us with Ctrl-C ignored.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    print(f"{sessions} sessions in {format_bytes(args.memory)}, --seed {seed}", flush=True)
    plan = make_plan(sessions, seed)
    try:
        cgroup = make_cage_cgroup(args.memory)
    except CannotCageError as error:
        cannot_run(f"a memory cgroup and namespaces are needed: {error}")
    try:
        ended = torture(plan, cgroup, args.log)
    finally:
        cgroup.remove()
    return finish(plan, seed, ended)


def torture(plan: list[Session], cgroup: SandboxCgroup, log: Path | None) -> Ended:
    """Send all the sessions, wait for their ends, and look before and after."""
    with (
        private_temporary() as temporary,
        running_site() as site,
        running_stage(temporary, CONCURRENCY, TASKS_PER_CHILD, cgroup) as stage,
    ):
        try:
            warm_up(stage, site)
            before = settle(stage, cgroup, "before", frozenset())
            began = time.monotonic()
            for session in plan:
                stage.sender.send_task(
                    f"{APP}.scrape",
                    (session.number, session.kind, session.delay_seconds, site),
                    queue=QUEUE,
                    task_id=session.task_id,
                    time_limit=KINDS[session.kind].limit_seconds,
                )
            results = wait_for_all(stage, plan)
            seconds = time.monotonic() - began
            after = settle(stage, cgroup, "after", before.entries)
            runs = read_runs(stage)
            oom_kills, peak = cgroup.oom_kills(), cgroup.peak_bytes()
            status = stage.stop()
        finally:
            if log is not None:
                log.write_bytes(stage.log.read_bytes())
    problems = {
        f"{session.task_id} ({session.kind})": problem
        for session in plan
        if (problem := judge(session, results.get(session.number), runs.get(str(session.number), 0)))
    }
    missing = sum(session.number not in results for session in plan)
    return Ended(before, after, problems, missing, runs, oom_kills, peak, seconds, status)


def warm_up(stage: Stage, site: str) -> None:
    """Run sessions until every child is one's successor: the first ones share more with the main process."""
    sent = [
        stage.sender.send_task(
            f"{APP}.scrape", (-1 - number, "well", 0.0, site), queue=QUEUE, task_id=f"warm-{number}"
        )
        for number in range(CONCURRENCY * (TASKS_PER_CHILD + 2))
    ]
    wait_until_done(stage, [task.id for task in sent], SESSION_SECONDS * TASKS_PER_CHILD)


def gather(stage: Stage, token: str) -> None:
    """Have every child end the browser it keeps."""
    sent = [
        stage.sender.send_task(f"{APP}.meet", (token, CONCURRENCY), queue=QUEUE, task_id=f"{token}-{number}")
        for number in range(CONCURRENCY)
    ]
    wait_until_done(stage, [task.id for task in sent], SESSION_SECONDS * 2)


def settle(stage: Stage, cgroup: SandboxCgroup, when: str, known: frozenset[Path]) -> State:
    """Look, again after a task each while a child's successor stands by, so that floors compare."""
    for attempt in range(TASKS_PER_CHILD):
        gather(stage, f"{when}-{attempt}")
        state = observe(stage, cgroup, known)
        say_state(when, state)
        if len(state.own) <= OWN_PROCESSES:
            break
    return state


def wait_until_done(stage: Stage, ids: list[str], seconds: float) -> None:
    """Wait until each task has a result; raises TimeoutError."""
    client, deadline = make_client(stage.redis_url), time.monotonic() + seconds
    while not all(client.mget([f"celery-task-meta-{task_id}" for task_id in ids])):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no end of {', '.join(ids)} in {seconds:g} s")
        time.sleep(0.1)


def wait_for_all(stage: Stage, plan: list[Session]) -> dict[int, dict[str, Any]]:
    """Return the results by session, once all are there or it takes too long."""
    client, deadline = (
        make_client(stage.redis_url),
        time.monotonic() + SESSION_SECONDS + SESSION_SECONDS * len(plan),
    )
    results: dict[int, dict[str, Any]] = {}
    told = time.monotonic()
    while len(results) < len(plan) and time.monotonic() < deadline and stage.cage.wait(0) is None:
        waiting = [session for session in plan if session.number not in results]
        found: Any = client.mget([f"celery-task-meta-{session.task_id}" for session in waiting])
        for session, text in zip(waiting, found, strict=True):
            if text is not None:
                results[session.number] = json.loads(text)
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            print(f"{len(results)} of {len(plan)} ended", file=sys.stderr, flush=True)
        time.sleep(0.2)
    return results


def read_runs(stage: Stage) -> dict[str, int]:
    """Return how often each session was begun, by its number."""
    counts: Any = make_client(stage.redis_url).hgetall("runs")
    return {number.decode(): int(count) for number, count in counts.items()}


def finish(plan: list[Session], seed: int, ended: Ended) -> int:
    """Print what went wrong and what came of each kind, and close with the bounds."""
    by_kind = Counter(session.kind for session in plan)
    wrong_by_kind = Counter(
        session.kind for session in plan if f"{session.task_id} ({session.kind})" in ended.wrong
    )
    runs_by_kind: Counter[str] = Counter()
    for session in plan:
        runs_by_kind[session.kind] += ended.runs.get(str(session.number), 0)
    print(f"\n{'kind':28} {'sessions':>8} {'runs':>5} {'wrong':>5}")
    for kind, count in sorted(by_kind.items()):
        print(f"{kind:28} {count:>8} {runs_by_kind[kind]:>5} {wrong_by_kind[kind]:>5}")
    for name, problem in list(ended.wrong.items())[:20]:
        print(f"{name}: {problem}")
    left = ended.after.entries - ended.before.entries
    temporary_left = [entry for entry in left if entry.parent.name != "shm"]
    growth = ended.after.floor_bytes - ended.before.floor_bytes
    required = {
        "sessions without an end": Bound(ended.missing, "==", 0),
        "sessions that ended wrongly": Bound(len(ended.wrong), "==", 0),
        "defunct processes left": Bound(ended.after.defunct, "==", 0),
        "processes left": Bound(len(ended.after.foreign), "==", 0),
        "files left in the temporary folder": Bound(len(temporary_left), "==", 0),
        "files left in /dev/shm": Bound(len(left) - len(temporary_left), "==", 0),
        "growth of the floor, MiB": Bound(round(growth / MIB, 1), "<=", FLOOR_MARGIN_BYTES / MIB),
        "OOM kills": Bound(ended.oom_kills, "==", 0),
        "exit status": Bound(ended.status, "==", 0),
    }
    figures: dict[str, object] = {
        "sessions": len(plan),
        "seed": seed,
        "seconds": round(ended.seconds, 1),
        "kinds": dict(by_kind),
        "runs": dict(runs_by_kind),
        "wrong": ended.wrong,
        "left": count_kinds(left),
        "processes left": Counter(ended.after.foreign),
        "processes of ours, MiB": [
            [round(pss / MIB) for pss in state.own] for state in (ended.before, ended.after)
        ],
        "floor bytes": [ended.before.floor_bytes, ended.after.floor_bytes],
        "peak bytes": ended.peak_bytes,
    }
    return close("browser_torture", figures, required, {})


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        sys.exit(main())
