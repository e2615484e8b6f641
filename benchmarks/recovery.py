"""recovery: kill -9 of child, worker, governor and container amid a task: seconds until it runs again."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil
import redis
from celery import Celery

from benchmarks.contract import Bound, close
from benchmarks.recovery_stage import QUEUE, START_SECONDS, Contained, can_contain, contained
from benchmarks.workers import count_held, make_client, make_sender, running_redis, wait_until

VICTIMS = ("child", "main", "governor", "container")
# Tasks with a countdown that the workers hold meanwhile, in a second series.
WAITING = 10_000
WAITING_SECONDS = 24 * 3600
LEASE_SECONDS = 10
# Another container knows of a death only by the lease.
MOST_SECONDS = {"child": 1.0, "main": 3.0, "container": LEASE_SECONDS + 3.0}
BEST_SECONDS = {"child": 0.5, "main": 1.5, "container": LEASE_SECONDS + 3.0}
# supervisord's startsecs of a worker, and a tick.
STARTED_SECONDS = 7.0
# Our tasks get this long before one counts as lost.
LOST_SECONDS = 90.0

HEADER = f"""
{"":33} {"s until the task runs again":^26} {"not seen":>9}
{"worker":9} {"killed":10} {"held":>5} {"deaths":>6} {"p50":>8} {"p99":>8} {"max":>8} {"again":>9} {"2nd":>4}"""


@dataclass(frozen=True)
class Plan:
    """How often everything dies, and how long stock Celery is waited for when it may take an hour."""

    rounds: dict[str, int]
    waiting_rounds: dict[str, int]
    stock_rounds: dict[str, int]
    stock_seconds: float

    def only(self, victims: Collection[str]) -> Plan:
        """Return the part in which those die."""
        rounds, waiting, stock = (
            {victim: times if victim in victims else 0 for victim, times in each.items()}
            for each in (self.rounds, self.waiting_rounds, self.stock_rounds)
        )
        return Plan(rounds, waiting, stock, self.stock_seconds)


@dataclass(frozen=True)
class Death:
    """One death: seconds until the task ran again (None: not within the wait), and the starts that it had."""

    seconds: float | None
    starts: int


@dataclass(frozen=True)
class Row:
    """All deaths of one kind of process."""

    kind: str
    victim: str
    deaths: list[Death]
    waited_seconds: float
    waiting: int
    """How many tasks with a countdown were held."""
    waiting_lost: int

    @property
    def name(self) -> str:
        """What dies, and amid how many."""
        return f"{self.victim} with {self.waiting} held" if self.waiting else self.victim

    @property
    def waits(self) -> list[float]:
        """Sorted seconds, of those that ran again."""
        return sorted(death.seconds for death in self.deaths if death.seconds is not None)

    @property
    def lost(self) -> int:
        """Tasks that did not run again within the wait, after a governor's none has to, and that are gone."""
        again = 0 if self.victim == "governor" else sum(death.seconds is None for death in self.deaths)
        return again + self.waiting_lost

    @property
    def duplicates(self) -> int:
        """Starts more than the death asked for."""
        needed = 1 if self.victim == "governor" else 2
        return sum(max(0, death.starts - needed) for death in self.deaths)

    def percentile(self, percent: float) -> float | None:
        """Return the percentile by nearest rank; None of nothing, or where it is among those not seen again."""
        rank = min(len(self.deaths) - 1, int(len(self.deaths) * percent / 100))
        return round(self.waits[rank], 2) if rank < len(self.waits) else None

    def line(self) -> str:
        """Return it as the table has it."""
        cells = " ".join(
            f"{value:8.2f}" if value is not None else f"{f'> {self.waited_seconds:.0f}':>8}"
            for value in (self.percentile(50), self.percentile(99), self.percentile(100))
        )
        who = f"{self.kind:9} {self.victim:10} {self.waiting:>5} {len(self.deaths):>6}"
        return f"{who} {cells} {self.lost:>9} {self.duplicates:>4}"

    def figures(self) -> dict[str, Any]:
        """Return it as the closing line has it."""
        return {
            "deaths": len(self.deaths),
            "p50_seconds": self.percentile(50),
            "p99_seconds": self.percentile(99),
            "max_seconds": self.percentile(100),
            "not_seen_again": self.lost,
            "waited_seconds": self.waited_seconds,
            "duplicates": self.duplicates,
        }


def main() -> int:
    """Measure each victim under Recyclery, then with stock Celery."""
    plan = parse()
    rows = []
    print(HEADER)
    for victim in VICTIMS:
        if victim == "container" and not can_contain():
            print("container: not measured: no PID namespace can be made here")
            continue
        for kind, rounds, seconds, waiting in (
            ("recyclery", plan.rounds[victim], LOST_SECONDS, 0),
            ("recyclery", plan.waiting_rounds[victim], LOST_SECONDS, WAITING),
            ("celery", plan.stock_rounds[victim], plan.stock_seconds, 0),
        ):
            if rounds:
                row = die(kind, victim, rounds, seconds, waiting)
                rows.append(row)
                print(row.line(), flush=True)
    print(
        "\ncelery: late acknowledgement and reject_on_worker_lost, its visibility timeout the default, 3600 s:"
    )
    print(
        f"what a killed worker held waits for that in Redis, and was waited for {plan.stock_seconds:g} s here."
    )
    print(
        "Each kind is started again at once. container: PID 1 of a PID namespace, another one alive beside it."
    )
    print("governor: seconds until another one answers; the task is to run on, and must not start again.")
    return finish(rows)


def parse() -> Plan:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="scripts/bench recovery", description=__doc__)
    parser.add_argument("--deaths", type=int, default=50, help="of each process (default: 50)")
    parser.add_argument(
        "--stock-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="how long stock Celery is waited for (default: 60)",
    )
    parser.add_argument("--killed", action="append", choices=VICTIMS, help="only that (default: each in turn)")
    parser.add_argument("--quick", action="store_true", help="a few deaths of each")
    args = parser.parse_args()
    few = max(1, args.deaths // 10)
    every = dict.fromkeys(VICTIMS, args.deaths)
    plan = Plan(
        every,
        every | {"governor": 0},
        {"child": args.deaths, "main": few, "governor": 0, "container": few},
        args.stock_seconds,
    )
    if args.quick:
        rounds = {"child": 5, "main": 2, "governor": 2, "container": 1}
        waiting = {"child": 2, "main": 1, "governor": 0, "container": 0}
        plan = Plan(rounds, waiting, {"child": 3, "main": 1, "governor": 0, "container": 0}, 5.0)
    return plan.only(args.killed or VICTIMS)


def die(kind: str, victim: str, rounds: int, seconds: float, waiting: int) -> Row:
    """Return what came of each death, with so many tasks held that wait for their time."""
    chance = random.Random(1)  # noqa: S311  # not a secret
    waits = []
    with running_redis() as url, running(kind, victim, url) as workers:
        desk = Desk(make_client(url), make_sender(url), workers)
        desk.fill(waiting)
        for number in range(rounds):
            say(f"{kind} {victim}, {waiting} held: {number + 1}/{rounds}")
            desk.begin(number)
            time.sleep(chance.uniform(0.0, 1.0))
            waits.append(KILLERS[victim](desk, number, seconds))
            desk.let_go(number)
        if kind == "recyclery":
            # What would run once more does so when a lease is over.
            time.sleep(0.0 if victim == "child" else LEASE_SECONDS + 3)
        deaths = [Death(waited, desk.starts(number)) for number, waited in enumerate(waits)]
        return Row(kind, victim, deaths, seconds, waiting, waiting - desk.count_waiting(waiting))


@contextmanager
def running(kind: str, victim: str, url: str) -> Iterator[list[Contained]]:
    """Run one worker; two in containers where one of those is to die."""
    if victim != "container":
        with contained(kind, url) as one:
            yield [one]
        return
    with contained(kind, url, in_namespace=True) as one, contained(kind, url, in_namespace=True) as other:
        yield [one, other]


class Desk:
    """Sends tasks, and sees them begin."""

    def __init__(self, client: redis.Redis, sender: Celery, workers: list[Contained]) -> None:
        self.workers = workers
        self._client = client
        self._sender = sender

    def fill(self, waiting: int) -> None:
        """Have the workers hold tasks that wait for their time."""
        with self._sender.connection_for_write() as connection:
            for number in range(waiting):
                self._sender.send_task(
                    "benchmarks.recovery_app.hold",
                    (-number,),
                    queue=QUEUE,
                    countdown=WAITING_SECONDS,
                    connection=connection,
                )
        wait_until(lambda: count_held(self._client) == waiting, START_SECONDS)

    def count_waiting(self, waiting: int) -> int:
        """Return how many of them are held, which may take them a while."""
        with suppress(TimeoutError):
            wait_until(lambda: count_held(self._client) == waiting, LEASE_SECONDS)
        return count_held(self._client)

    def begin(self, number: int) -> None:
        """Have a task run, with workers that are known to their supervisors: what died before has come back."""
        for worker in self.workers:
            worker.wait_until_known()
        self._sender.send_task("benchmarks.recovery_app.hold", (number,), queue=QUEUE)
        wait_until(lambda: self.starts(number) > 0, START_SECONDS)

    def starts(self, number: int) -> int:
        """Return how often a task has begun."""
        begun: int = self._client.llen(f"begun:{number}")
        return begun

    def place(self, number: int) -> dict[str, Any]:
        """Return where a task last began."""
        noted: Any = self._client.lindex(f"begun:{number}", -1)
        place: dict[str, Any] = json.loads(noted)
        return place

    def wait_for_rerun(self, number: int, killed: float, seconds: float) -> float | None:
        """Return the seconds from a kill to the task's next start; None where it did not come in time."""
        try:
            wait_until(lambda: self.starts(number) > 1, seconds)
        except TimeoutError:
            return None
        return float(self.place(number)["at"]) - killed

    def let_go(self, number: int) -> None:
        """Let a task end, however often it began."""
        self._client.rpush(f"release:{number}", *["go"] * (self.starts(number) + 5))


def kill_child(desk: Desk, number: int, seconds: float) -> float | None:
    """Kill the process in which the task runs."""
    return kill(desk, number, desk.place(number)["child"], seconds)


def kill_main(desk: Desk, number: int, seconds: float) -> float | None:
    """Kill its parent, the worker's main process, once that counts as started: else a pause comes first."""
    main: int = desk.place(number)["main"]
    time.sleep(max(0.0, psutil.Process(main).create_time() + STARTED_SECONDS - time.time()))
    return kill(desk, number, main, seconds)


def kill_container(desk: Desk, number: int, seconds: float) -> float | None:
    """Kill PID 1 of the container in which the task runs, and all with it."""
    place = desk.place(number)["container"]
    return kill(desk, number, next(each.first for each in desk.workers if each.name == place), seconds)


def kill(desk: Desk, number: int, pid: int, seconds: float) -> float | None:
    """Kill a process and wait for the task."""
    killed = boot_time()
    os.kill(pid, signal.SIGKILL)
    return desk.wait_for_rerun(number, killed, seconds)


def kill_governor(desk: Desk, number: int, seconds: float) -> float | None:
    """Kill the governor, and return the seconds until another one answers; the task is to run on."""
    (worker,) = desk.workers
    killed = boot_time()
    os.kill(worker.governor(), signal.SIGKILL)
    try:
        wait_until(lambda: worker.status() is not None, seconds)
    except TimeoutError:
        return None
    return boot_time() - killed


KILLERS: dict[str, Callable[[Desk, int, float], float | None]] = {
    "child": kill_child,
    "main": kill_main,
    "governor": kill_governor,
    "container": kill_container,
}


def boot_time() -> float:
    """Seconds of CLOCK_BOOTTIME, as tasks note their starts."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def say(line: str) -> None:
    """Tell how far it is, apart from the table."""
    print(line, file=sys.stderr, flush=True)


def finish(rows: list[Row]) -> int:
    """Close with the bounds, which are ours; without containers those of the rest."""
    required: dict[str, Bound] = {}
    goal: dict[str, Bound] = {}
    ours = [row for row in rows if row.kind == "recyclery"]
    for row in ours:
        if row.victim == "governor":
            continue
        slowest = row.percentile(100)
        value, name = slowest if slowest is not None else LOST_SECONDS, f"max s, {row.name} killed"
        required[name] = Bound(value, "<=", MOST_SECONDS[row.victim])
        goal[name] = Bound(value, "<=", BEST_SECONDS[row.victim])
    required["lost"] = Bound(sum(row.lost for row in ours), "==", 0)
    required["duplicates"] = Bound(sum(row.duplicates for row in ours), "==", 0)
    figures: dict[str, object] = {f"{row.kind}, {row.name}": row.figures() for row in rows}
    return close("recovery", figures, required, goal)


if __name__ == "__main__":
    sys.exit(main())
