"""The storm: its tasks are sent, waited for and counted, by what they leave in Redis."""

import json
import math
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import cast

import redis
from celery import Celery

from recyclery_demo.plan import StormPlan


@dataclass(frozen=True)
class Tally:
    """The fate of every scraping task.

    succeeded   done at least once
    duplicates  completions beyond the first
    failed      the result is FAILURE and the task was never done
    queued      neither done nor failed, but still waiting in the queue after the workers stopped
    lost        none of these: nobody will ever run it
    """

    succeeded: int
    duplicates: int
    failed: int
    queued: int
    lost: int


def count_tasks(
    numbers: Iterable[int], times_done: Mapping[int, int], failed: Collection[int], queued: Collection[int] = ()
) -> Tally:
    """Sort the numbers into the fates of a Tally; being done beats every other sign."""
    times = {number: times_done.get(number, 0) for number in numbers}
    done = [count for count in times.values() if count]
    undone = {number for number, count in times.items() if not count}
    failures = undone & set(failed)
    waiting = (undone - failures) & set(queued)
    lost = undone - failures - waiting
    return Tally(len(done), sum(done) - len(done), len(failures), len(waiting), len(lost))


def percentile(values: Iterable[float], percent: float) -> float | None:
    """Return the nearest-rank percentile, or None where there are no values."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


_TASKS = "app.infrastructure.celery.tasks.storm"
_SLOW_QUEUE, _FAST_QUEUE = "low", "high"
# kombu keeps messages of other priorities in queues of this suffix.
_PRIORITY_MARK = "\x06\x16"
PING_SECONDS = 1.0


@dataclass(frozen=True)
class Counts:
    """What the tasks have left in Redis so far."""

    tally: Tally
    pinged: int
    latencies_seconds: tuple[float, ...]


class Storm:
    """One storm under way: `run` names its keys."""

    def __init__(self, redis_url: str, run: str, plan: StormPlan) -> None:
        self.plan = plan
        self.run = run
        self._redis = redis.Redis.from_url(redis_url, decode_responses=True)
        self._celery = Celery("recyclery-demo", broker=redis_url, set_as_current=False)
        self._stop_sending = threading.Event()
        self._sender = threading.Thread(target=self._send, name="storm-sender", daemon=True)
        self._failed: set[int] = set()
        self._latencies_seconds: list[float] = []

    def answering_pools(self) -> set[str]:
        """Return the names of the pools whose worker answers a ping, such as `fast` of fast@HOST."""
        replies = self._celery.control.ping(timeout=PING_SECONDS) or []
        return {node.partition("@")[0] for reply in replies for node in reply}

    def start(self) -> None:
        """Begin to send: all the scrapes at once, the pings at their pace."""
        self._sender.start()

    def stop(self) -> None:
        """Send nothing more."""
        self._stop_sending.set()
        if self._sender.is_alive():
            self._sender.join()

    def _send(self) -> None:
        started = time.time()
        for scrape in self.plan.scrapes:
            self._celery.send_task(
                f"{_TASKS}.scrape",
                (scrape.number, self.run),
                {name: value for name, value in asdict(scrape).items() if name != "number"},
                queue=_SLOW_QUEUE,
                task_id=self._task_id(scrape.number),
            )
        for ping in self.plan.pings:
            due = started + ping.due_seconds
            if self._stop_sending.wait(max(0.0, due - time.time())):
                return
            # The latency counts from when the ping was due: a late sender is not to flatter the workers.
            self._celery.send_task(f"{_TASKS}.ping", (ping.number, self.run, due), queue=_FAST_QUEUE)

    def _task_id(self, number: int) -> str:
        return f"{self.run}-scrape-{number}"

    def _key(self, name: str) -> str:
        return f"recyclery:storm:{self.run}:{name}"

    def read_final_counts(self) -> Counts:
        """Return where the storm ended; only once the workers stopped is a task in the queue not in work."""
        return self.read_counts(self._read_queued())

    def read_counts(self, queued: Collection[int] = ()) -> Counts:
        """Return where the storm stands."""
        times_done = {
            int(number): int(times)
            for number, times in cast("dict[str, str]", self._redis.hgetall(self._key("scraped"))).items()
        }
        numbers = [scrape.number for scrape in self.plan.scrapes]
        self._failed |= self._read_failed([number for number in numbers if times_done.get(number, 0) == 0])
        new = cast("list[str]", self._redis.lrange(self._key("latency"), len(self._latencies_seconds), -1))
        self._latencies_seconds += [float(seconds) for seconds in new]
        return Counts(
            tally=count_tasks(numbers, times_done, self._failed, queued),
            pinged=self._redis.hlen(self._key("pinged")),
            latencies_seconds=tuple(self._latencies_seconds),
        )

    def _read_failed(self, numbers: list[int]) -> set[int]:
        """Return which of these Celery's result backend calls FAILURE; one request for all of them."""
        if not (open_numbers := [number for number in numbers if number not in self._failed]):
            return set()
        keys = [f"celery-task-meta-{self._task_id(number)}" for number in open_numbers]
        results = cast("list[str | None]", self._redis.mget(keys))
        return {
            number
            for number, result in zip(open_numbers, results, strict=True)
            if result is not None and json.loads(result).get("status") == "FAILURE"
        }

    def _read_queued(self) -> set[int]:
        """Return the scrapes that still wait in the slow queue."""
        keys = self._redis.scan_iter(f"{_SLOW_QUEUE}*", _type="list")
        queues = [key for key in keys if key == _SLOW_QUEUE or key.startswith(_SLOW_QUEUE + _PRIORITY_MARK)]
        texts = (text for key in queues for text in cast("list[str]", self._redis.lrange(key, 0, -1)))
        waiting = {json.loads(text).get("headers", {}).get("id") for text in texts}
        numbers = (scrape.number for scrape in self.plan.scrapes)
        return {number for number in numbers if self._task_id(number) in waiting}
