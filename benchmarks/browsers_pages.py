"""browsers_pages: not a benchmark; pages a minute and memory, with a new browser each and with a kept one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.browsers_flags import start_plain
from benchmarks.browsers_meters import MIB, held_bytes, session_pids
from recyclery_worker.browser import browser
from recyclery_worker.browser.context import end_kept

NEW, KEPT, TIGHT, PLAIN = "a new one each", "kept", "kept, little memory", "one tab for ever"
KEEP, KEEP_BYTES = 50, 512 * MIB
# Above what a fresh browser holds: a few pages, then it has to go.
TIGHT_MARGIN_BYTES = 24 * MIB
# So many pages in one way, then as many in the next: the machine's load hits all alike.
BLOCK_PAGES = 10


@dataclass
class Curve:
    """The pages of one way to have a browser: seconds each, what it held at a block's start and at its end."""

    seconds: list[float] = field(default_factory=list)
    begun_bytes: list[int] = field(default_factory=list)
    ended_bytes: list[int] = field(default_factory=list)
    browsers: set[int] = field(default_factory=set)

    @property
    def pages_per_minute(self) -> float:
        """How fast it was; what it took to measure is not in it."""
        return 60 * len(self.seconds) / sum(self.seconds)

    @property
    def most_bytes(self) -> int:
        """The most that it ever held."""
        return max(*self.begun_bytes, *self.ended_bytes)

    @property
    def spread_bytes(self) -> int:
        """From the least to the most that it held."""
        return self.most_bytes - min(*self.begun_bytes, *self.ended_bytes)

    def document(self) -> dict[str, float]:
        """Return it as the closing line has it."""
        return {
            "pages": len(self.seconds),
            "browsers": len(self.browsers),
            "pages per minute": round(self.pages_per_minute, 1),
            "start MiB": round(self.ended_bytes[0] / MIB, 1),
            "end MiB": round(self.ended_bytes[-1] / MIB, 1),
            "most MiB": round(self.most_bytes / MIB, 1),
        }


def measure_pages(
    url: str, pages: int, chance: random.Random, say: Callable[[str], None]
) -> tuple[dict[str, Curve], dict[str, int]]:
    """Load so many pages in each way; return the curves, and the bytes that each kept browser may hold."""
    curves = {name: Curve() for name in (NEW, KEPT, PLAIN)}
    with (
        closing(load_in_browsers(url, 1, KEEP_BYTES, curves[NEW])) as new,
        closing(load_in_browsers(url, KEEP, KEEP_BYTES, curves[KEPT])) as kept,
        closing(load_in_one_tab(url, curves[PLAIN])) as plain,
    ):
        ways: dict[str, Generator[None, None, None]] = {NEW: new, KEPT: kept, PLAIN: plain}
        for done in range(0, pages, BLOCK_PAGES):
            say(f"pages: {done} of {pages} in each of {len(ways)} ways")
            for name in chance.sample(list(ways), len(ways)):
                for _ in range(min(BLOCK_PAGES, pages - done)):
                    next(ways[name])
    # A thread keeps one browser only, so this comes after.
    say(f"pages: {pages} with little memory")
    limits = {KEPT: KEEP_BYTES, TIGHT: max(curves[NEW].begun_bytes) + TIGHT_MARGIN_BYTES}
    curves[TIGHT] = Curve()
    with closing(load_in_browsers(url, pages + 1, limits[TIGHT], curves[TIGHT])) as tight:
        for _ in range(pages):
            next(tight)
    return curves, limits


def load_in_browsers(url: str, keep: int, keep_bytes: int, curve: Curve) -> Generator[None, None, None]:
    """Load a page in a block of `browser()` at each step; at the end the browser kept is ended."""
    try:
        while True:
            watch = Stopwatch()
            with browser(keep=keep, keep_bytes=keep_bytes) as driver:
                load(driver, url, curve, watch)
            curve.seconds.append(watch.seconds())
            yield
    finally:
        end_kept()


def load_in_one_tab(url: str, curve: Curve) -> Generator[None, None, None]:
    """Load a page at each step in the one tab of one browser, as Selenium's examples do."""
    driver: Any = None
    try:
        while True:
            watch = Stopwatch()
            driver = driver or start_plain()
            load(driver, url, curve, watch)
            curve.seconds.append(watch.seconds())
            yield
    finally:
        if driver is not None:
            driver.quit()


def load(driver: Any, url: str, curve: Curve, watch: Stopwatch) -> None:
    """Load the page, and note what the browser holds before and after."""
    with watch.paused():
        curve.begun_bytes.append(held_bytes(session_pids(driver)))
    driver.get(url)
    with watch.paused():
        curve.ended_bytes.append(held_bytes(session_pids(driver)))
        curve.browsers.add(driver.service.process.pid)


def cycle_ratios(new: Curve, kept: Curve) -> list[float]:
    """Return how many times as fast a kept browser was, for each life that one has: its start is in it.

    Fewer pages than a life are one ratio.
    """
    begins = range(0, max(1, len(new.seconds) - KEEP + 1), KEEP)
    spans = [slice(begin, begin + KEEP) for begin in begins]
    return [round(sum(new.seconds[span]) / sum(kept.seconds[span]), 3) for span in spans]


class Stopwatch:
    """Times a block, without what is paused in it."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._paused = 0.0

    @contextmanager
    def paused(self) -> Generator[None, None, None]:
        """Do not count this block."""
        began = time.monotonic()
        yield
        self._paused += time.monotonic() - began

    def seconds(self) -> float:
        """Return the time since its making."""
        return time.monotonic() - self._began - self._paused


def print_pages(curves: dict[str, Curve], limits: dict[str, int]) -> None:
    """Print a row for each way."""
    print(
        f"\n{'browser':22} {'pages/min':>9} {'browsers':>8} {'start':>6} {'end':>6} {'most':>6} {'may':>6}  MiB"
    )
    for name, curve in curves.items():
        row = curve.document()
        may = f"{limits[name] / MIB:6.0f}" if name in limits else f"{'':>6}"
        print(
            f"{name:22} {row['pages per minute']:9.1f} {row['browsers']:8.0f} {row['start MiB']:6.0f} "
            f"{row['end MiB']:6.0f} {row['most MiB']:6.0f} {may}"
        )
