"""The page on a port of its own, over a history of hours and a status made by hand: no supervisor runs."""

import asyncio
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.leak_worlds import Planted, live
from recyclery.config.settings import Address, HistorySettings
from recyclery.control.status_schema import Event, Status
from recyclery.history.records import ActionRecord, ContainerSample, PoolSample, Record, RunRecord
from recyclery.history.retention import tidy
from recyclery.history.store import Store, stamp
from recyclery.http.routes import list_page
from recyclery.http.server import serve_handlers
from recyclery.observe.snapshot import Owner
from support.ports import free_port
from support.statuses import MIB, child, drains, pool, status, with_browsers

ODD_TASK = "<script>alert(1)</script>"
TASKS = (
    Planted("shop.tasks.reports.export_quarter_for_the_accountant", "leak", mib=4),
    Planted("shop.tasks.scrape_prices", "plateau", warm_up=60),
    Planted(ODD_TASK, "none"),
)
# A day has as many looks as make all spans look as they do.
EVERY_SECONDS = 10


def record_hours(path: Path, hours: float) -> Path:
    """Write so many hours of a container of 1000 MiB up to now: two pools that grow and are recycled."""
    store = Store(path)
    now = time.time()
    begun = int(now - hours * 3600)
    store.write(samples(begun, int(now)))
    tidy(store.connection, HistorySettings(), stamp(now))
    store.write(runs(begun, int(now)))
    store.close()
    return path


def samples(begun: int, until: int) -> Iterator[Record]:
    """Yield what is measured, and what is done each time that a pool has grown enough."""
    for at in range(begun, until, EVERY_SECONDS):
        slow = (80 + (at % 1500) / 1500 * 260 + 40 * (at // 60 % 3 == 0)) * MIB
        fast = (150 + 60 * math.sin(at / 2400) + (at // 10 % 5) * 4) * MIB
        floor = slow + fast + 180 * MIB
        yield ContainerSample(at, 1000 * MIB, round(floor + 120 * MIB), round(floor), 0, 0)
        yield PoolSample(at, "fast", round(fast), 70 * MIB, 3, 600 * MIB, 100)
        yield PoolSample(at, "slow", round(slow), 70 * MIB, 1, 600 * MIB, 10)
        if at % 1500 < EVERY_SECONDS:
            owner = Owner("slow", at % 30000 + 100, at)
            why = "its tree of 344 MiB and the next task's 96 MiB would pass its budget of 420 MiB"
            line = f"retire slow/{owner.pid}: {why}"
            yield ActionRecord(at, "retire", "slow", owner, TASKS[0].name, why, line, True, 0, 0)
        if at % 5400 < EVERY_SECONDS:
            why = "reap orphans of slow/20: killed chromium (6 processes), 210 MiB"
            yield ActionRecord(at, "reap orphan", "slow", None, ODD_TASK, why, why, True, 0, 0)
        if at % 9000 < EVERY_SECONDS:
            why = "preempt slow/1234: 978 MiB cannot be reclaimed, above 95 % of the limit"
            yield ActionRecord(at, "preempt", "slow", None, TASKS[0].name, why, why, False, 0, 0)


def runs(begun: int, until: int) -> list[Record]:
    """Return runs of known leaks."""
    found, _ = live(TASKS, 60, 60, "a page")
    apart = (until - begun) / (len(found) + 1)
    return [
        RunRecord(
            owner=Owner("slow", 1000 + run.child, begun),
            tasks=run.tasks,
            place=run.place,
            ended=begun + number * apart,
            seconds=1.0,
            before=run.before,
            peak=run.peak,
            after=run.after,
            browser_seen=True,
            outcome="done",
        )
        for number, run in enumerate(found)
    ]


def busy_status() -> Status:
    """A container in which much goes on: browsers, a handoff, a hold, long names."""
    names = (TASKS[0].name, ODD_TASK, "shop.tasks.mail")
    pools = {
        "fast": pool(
            "fast",
            *(child(7000 + number, name) for number, name in enumerate(names)),
            queues=["high", "default"],
            concurrency=3,
            max_tasks_per_child=100,
            recycles={"budget": 12, "max_tasks": 3},
            queue_depth=1234,
        ),
        "slow": pool(
            "slow",
            child(10569, "shop.tasks.scrape_prices", tree_bytes=265 * MIB, tree_browser_bytes=210 * MIB),
            child(10700),
            queue_depth=2,
            holding=True,
            draining=[drains("slow-b", "shop.tasks.scrape_prices")],
        ),
    }
    why = "MiB cannot be reclaimed, and the next task may need 96 MiB: together past 950 MiB; it takes no more"
    events = [Event(4.0 + 60 * place, f"hold slow: {900 - place} {why}", place != 2) for place in range(12)]
    return with_browsers(status(*events, pools=pools, floor_mib=790, parked=1), live=3, in_use=2, strangers=1)


class Served:
    """A page that is served in a thread; its status can be changed, and its answers stopped."""

    def __init__(self, history: Path, host: str, token: str) -> None:
        self.status = busy_status()
        self.address = Address(host=host, port=free_port())
        self._history = history
        self._token = token
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()
        self._server: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """Where it is served."""
        return self.address.port

    def run(self) -> None:
        """Serve until it is stopped."""
        with self._runner, suppress(asyncio.CancelledError):
            self._runner.run(self._serve())

    def stop(self) -> None:
        """Answer no more."""
        if self._server is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._server.cancel)

    async def _serve(self) -> None:
        handlers, post_handlers = list_page(self._glance, self._history, self.address, self._token)
        self._server = asyncio.create_task(serve_handlers(self.address, handlers, post_handlers))
        await self._server

    async def _glance(self) -> Status:
        return self.status


@contextmanager
def serving_page(history: Path, *, host: str = "127.0.0.1", token: str = "") -> Iterator[Served]:
    """Serve the page for the time of a block."""
    served = Served(history, host, token)
    thread = threading.Thread(target=served.run, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.stop()
        thread.join(10)
