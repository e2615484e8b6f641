"""browsers_app: not a benchmark; the Celery app whose tasks open browsers and meet with every mishap."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import redis
from celery import Celery

from benchmarks.browsers_flags import start_plain
from recyclery_worker.browser import browser
from recyclery_worker.browser.context import end_kept

url = os.environ.get("REDIS_URL", "")
app = Celery("browsers", broker=url, backend=url or None)
app.conf.update(
    # So that the task of a killed child is run again.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_track_started=False,
)

RELEASED_POLL_SECONDS = 0.05
MEET_SECONDS = 60.0
# So many blocks: longer than one task, shorter than a child's life.
KEEP = 4


class Mishap(Exception):
    """What a task raises that is meant to fail."""


def client() -> redis.Redis:
    """Return a connection of this process's own."""
    return redis.Redis(unix_socket_path=url.removeprefix("redis+socket://"))


def browser_pid(chromedriver: int) -> int:
    """Return the pid of the Chrome below a chromedriver."""
    for child in psutil.Process(chromedriver).children():
        with suppress(psutil.Error):
            if child.name().startswith("chrom") and "crashpad" not in child.name():
                return child.pid
    raise Mishap("there is no Chrome below chromedriver")


@app.task(acks_late=False, reject_on_worker_lost=False)
def hold(raw: bool, token: str, page: str) -> None:
    """Open a browser, say which processes it is, and go on using it until it is killed."""
    os.environ["BENCH_SESSION"] = token
    with opened(raw) as driver:
        driver.get(page)
        chromedriver = driver.service.process.pid
        told = {"child": os.getpid(), "chromedriver": chromedriver, "browser": browser_pid(chromedriver)}
        client().rpush(f"held:{token}", json.dumps(told))
        while True:
            _ = driver.title
            time.sleep(RELEASED_POLL_SECONDS)


@contextmanager
def opened(raw: bool, keep: int = 1) -> Iterator[Any]:
    """Open a browser by `browser()`, or as one who never quits it."""
    if raw:
        yield start_plain()
        return
    with browser(page_load_timeout_seconds=PAGE_SECONDS, keep=keep) as driver:
        yield driver


PAGE_SECONDS = 20.0


@app.task
def meet(token: str, parties: int) -> None:
    """End the browser kept in this child, once so many children are here: each has then done so."""
    end_kept()
    connection = client()
    connection.sadd(f"meet:{token}", os.getpid())
    deadline = time.monotonic() + MEET_SECONDS
    while connection.scard(f"meet:{token}") < parties and time.monotonic() < deadline:
        time.sleep(RELEASED_POLL_SECONDS)


@app.task
def scrape(number: int, kind: str, delay_seconds: float, site: str) -> str:
    """Do a session of this kind: a page is loaded, and the mishap comes so much later."""
    run = client().hincrby("runs", str(number), 1)
    return RUNS[kind](site, delay_seconds, run)


def visit(driver: Any, site: str) -> str:
    """Load the page and return what it shows."""
    driver.get(f"{site}/short")
    title: str = driver.title
    if title != "done":
        raise Mishap(f"the page shows {title!r}")
    return title


def go_on(driver: Any) -> None:
    """Use the browser until that fails."""
    while True:
        _ = driver.title
        time.sleep(RELEASED_POLL_SECONDS)


def kill_later(pid: int, delay_seconds: float) -> None:
    """SIGKILL a process a little later, whatever the task is doing then."""

    def strike() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    threading.Timer(delay_seconds, strike).start()


def well(site: str, _delay: float, _run: int) -> str:
    """Nothing happens."""
    with opened(raw=False) as driver:
        return visit(driver, site)


def kept(site: str, _delay: float, _run: int) -> str:
    """The browser is kept for the next task that wants one so."""
    with opened(raw=False, keep=KEEP) as driver:
        return visit(driver, site)


def kept_killed(site: str, _delay: float, _run: int) -> str:
    """The browser is kept, and killed before the next task comes for it."""
    with opened(raw=False, keep=KEEP) as driver:
        seen = visit(driver, site)
        doomed = browser_pid(driver.service.process.pid)
    with suppress(ProcessLookupError):
        os.kill(doomed, signal.SIGKILL)
    return seen


def raising(site: str, _delay: float, _run: int) -> str:
    """The task raises inside the block."""
    with opened(raw=False) as driver:
        visit(driver, site)
        raise Mishap("as planned")


def no_quit(site: str, _delay: float, _run: int) -> str:
    """The task forgets its browser."""
    with opened(raw=True) as driver:
        return visit(driver, site)


def hanging(raw: bool) -> Callable[[str, float, int], str]:
    """The task goes on for ever: the hard time limit ends it."""

    def run(site: str, _delay: float, _run: int) -> str:
        with opened(raw) as driver:
            visit(driver, site)
            while True:
                time.sleep(1)

    return run


def never(site: str, _delay: float, _run: int) -> str:
    """The page never comes."""
    with opened(raw=False) as driver:
        driver.set_page_load_timeout(2)
        driver.get(f"{site}/never")
        return "it came"


def crash(raw: bool) -> Callable[[str, float, int], str]:
    """The tab crashes."""

    def run(site: str, _delay: float, _run: int) -> str:
        with opened(raw) as driver:
            visit(driver, site)
            driver.get("chrome://crash")
            go_on(driver)
        return "it did not crash"

    return run


def killed(victim: str, raw: bool) -> Callable[[str, float, int], str]:
    """SIGKILL takes the child (in its first run alone), chromedriver or the browser."""

    def run(site: str, delay_seconds: float, number: int) -> str:
        if victim == "child":
            if number == 1:
                # Beforehand, so that it comes at any moment of the start too.
                kill_later(os.getpid(), delay_seconds * 5)
            with opened(raw) as driver:
                seen = visit(driver, site)
                if number == 1:
                    go_on(driver)
                if raw:
                    driver.quit()
                return seen
        with opened(raw) as driver:
            chromedriver = driver.service.process.pid
            kill_later(chromedriver if victim == "chromedriver" else browser_pid(chromedriver), delay_seconds)
            visit(driver, site)
            go_on(driver)
        return "it was not killed"

    return run


RUNS: dict[str, Callable[[str, float, int], str]] = {
    "well": well,
    "kept": kept,
    "kept, then browser killed": kept_killed,
    "exception": raising,
    "no quit, raw": no_quit,
    "hard limit": hanging(raw=False),
    "hard limit, raw": hanging(raw=True),
    "page never comes": never,
    "tab crash": crash(raw=False),
    "tab crash, raw": crash(raw=True),
    "child killed": killed("child", raw=False),
    "child killed, raw": killed("child", raw=True),
    "chromedriver killed": killed("chromedriver", raw=False),
    "chromedriver killed, raw": killed("chromedriver", raw=True),
    "browser killed": killed("browser", raw=False),
    "browser killed, raw": killed("browser", raw=True),
}
