"""browsers_flags: not a benchmark; what each flag does to a browser's start-up and memory, against our set."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.browsers_meters import MIB, Spread, held_bytes, pss_bytes, session_pids, spread
from recyclery_worker.browser.driver import find_browser, is_sandbox_usable
from recyclery_worker.browser.profiles import make_profile
from recyclery_worker.browser.session import (
    FLAGS,
    LOCAL_FLAGS,
    BrowserNotStarted,
    BrowserRequest,
    LocalSession,
    bound_chrome,
    start_driver,
)

OURS, AGAIN, SELENIUM = "our set", "our set, again", "Selenium's defaults"
START_PAGE = "start page"
# Recommended elsewhere; --single-process too, which Chrome does not support.
MYTHS = (
    "--disable-gpu",
    "--disable-extensions",
    "--no-zygote",
    "--disk-cache-size=1",
    "--renderer-process-limit=1",
    "--disable-software-rasterizer",
    "--enable-low-end-device-mode",
    "--js-flags=--lite-mode",
    "--disable-features=SpareRendererForSitePerProcess",
    "--window-size=1920,1080",
)
# What a page began is over by then: its garbage, a renderer started ahead.
SETTLE_SECONDS = 1.0
COMMAND_SECONDS = 60.0


@dataclass(frozen=True)
class Variant:
    """A way to start a browser: our set, with a flag left out or one added; Selenium's is told by its name."""

    name: str
    without: str | None = None
    added: str | None = None


@dataclass
class Readings:
    """What was measured of one variant, round by round; None where it did not start."""

    start_seconds: list[float | None] = field(default_factory=list)
    page_seconds: list[float | None] = field(default_factory=list)
    pss_mib: list[float | None] = field(default_factory=list)
    held_mib: list[float | None] = field(default_factory=list)

    def figures(self) -> dict[str, list[float | None]]:
        """Return the lists by name."""
        return {
            "start s": self.start_seconds,
            "page s": self.page_seconds,
            "PSS MiB": self.pss_mib,
            "held MiB": self.held_mib,
        }


def list_variants(quick: bool) -> list[Variant]:
    """Return all that is to be measured; quick: our set, itself again, and Selenium's."""
    basis = [Variant(OURS), Variant(AGAIN), Variant(SELENIUM)]
    if quick:
        return basis
    left_out = [*FLAGS, *LOCAL_FLAGS, "--window-size", START_PAGE]
    if not is_sandbox_usable():
        left_out.append("--no-sandbox")
    return [
        *basis,
        *(Variant(f"without {flag}", without=flag) for flag in left_out),
        *(Variant(f"with {flag}", added=flag) for flag in MYTHS),
    ]


def change_arguments(arguments: Sequence[str], variant: Variant) -> list[str]:
    """Return Chrome's arguments with the variant's flag left out or added; an added one replaces its like."""

    def name(argument: str) -> str:
        return argument.partition("=")[0]

    dropped = {name(flag) for flag in (variant.without, variant.added) if flag is not None}
    kept = [argument for argument in arguments if name(argument) not in dropped]
    return [*kept, variant.added] if variant.added is not None else kept


def measure_flags(
    url: str, rounds: int, quick: bool, chance: random.Random, say: Callable[[str], None]
) -> dict[str, Readings]:
    """Measure every variant once a round, each round in an order of its own."""
    variants = list_variants(quick)
    readings = {variant.name: Readings() for variant in variants}
    with started(Variant(OURS)):
        pass  # The first start reads Chrome from the disk.
    for number in range(rounds):
        say(f"flags: round {number + 1} of {rounds}, {len(variants)} browsers")
        for variant in chance.sample(variants, len(variants)):
            measure_one(variant, url, readings[variant.name])
    return readings


def measure_one(variant: Variant, url: str, readings: Readings) -> None:
    """Start a browser, load the page, and add what was seen."""
    from selenium.common.exceptions import WebDriverException  # noqa: PLC0415

    began = time.monotonic()
    try:
        with started(variant) as driver:
            ready = time.monotonic()
            driver.get(url)
            loaded = time.monotonic()
            if driver.title != "done":
                raise BrowserNotStarted(f"the page was not drawn: {driver.title!r}")
            time.sleep(SETTLE_SECONDS)
            pids = session_pids(driver)
            pss, held = pss_bytes(pids) / MIB, held_bytes(pids) / MIB
    except (BrowserNotStarted, WebDriverException):
        for values in readings.figures().values():
            values.append(None)
        return
    readings.start_seconds.append(ready - began)
    readings.page_seconds.append(loaded - ready)
    readings.pss_mib.append(pss)
    readings.held_mib.append(held)


@contextmanager
def started(variant: Variant) -> Iterator[Any]:
    """Start the variant's browser, and leave nothing of it."""
    if variant.name == SELENIUM:
        driver = start_plain()
        try:
            yield driver
        finally:
            driver.quit()
        return
    pair, profile = find_browser(), make_profile()
    try:
        options = BrowserRequest().make_options(profile.path)
        options.arguments[:] = change_arguments(options.arguments, variant)
        if variant.without == START_PAGE:
            del options.experimental_options["prefs"]["session.restore_on_startup"]
        driver = start_driver(pair, profile.path, options, bound_chrome(COMMAND_SECONDS))
    except BaseException:
        profile.end(set())
        raise
    session = LocalSession(driver, profile)
    try:
        yield session.driver
    finally:
        session.end()


def start_plain() -> Any:
    """Start a browser as a script does that knows nothing of ours; headless, for there is no display."""
    from selenium import webdriver  # noqa: PLC0415

    pair = find_browser()
    options = webdriver.ChromeOptions()
    options.binary_location = str(pair.chrome)
    options.add_argument("--headless=new")
    if not is_sandbox_usable():
        options.add_argument("--no-sandbox")
    return webdriver.Chrome(options, webdriver.ChromeService(str(pair.chromedriver)))


def compare(values: Sequence[float | None], reference: Sequence[float | None]) -> Spread | None:
    """Return how value / reference spreads over the rounds in which both were measured; None: there is none."""
    ratios = paired_ratios(values, reference)
    return spread(ratios) if ratios else None


def paired_ratios(values: Sequence[float | None], reference: Sequence[float | None]) -> list[float]:
    """Return value / reference of each round in which both were measured."""
    pairs = zip(values, reference, strict=True)
    return [round(value / base, 3) for value, base in pairs if value is not None and base is not None]


def ratio_samples(readings: dict[str, Readings]) -> dict[str, list[float]]:
    """Return each variant's ratios to our set, round by round, by the names that the figures have."""
    return {
        f"flags: {name}: {figure}, to ours": paired_ratios(values, readings[OURS].figures()[figure])
        for name, own in readings.items()
        for figure, values in own.figures().items()
        if name != OURS
    }


def known(values: Sequence[float | None]) -> list[float]:
    """Return what was measured."""
    return [value for value in values if value is not None]


def make_document(readings: dict[str, Readings]) -> dict[str, Any]:
    """Return the figures for the closing line: each as median, least and largest, and so its ratio to ours."""
    document: dict[str, Any] = {}
    for name, own in readings.items():
        row: dict[str, Any] = {"failed starts": own.start_seconds.count(None)}
        for figure, values in own.figures().items():
            if known(values):
                row[figure] = spread(known(values)).document()
            ratio = compare(values, readings[OURS].figures()[figure])
            if ratio is not None:
                row[f"{figure}, to ours"] = ratio.document()
        document[name] = row
    return document


def print_flags(readings: dict[str, Readings]) -> None:
    """Print medians, and the ratios to our set with their range."""
    print(f"\n{'':58} {'start s':>7} {'PSS':>5} {'held':>5}  ratio to our set, the same round: median (range)")
    print(f"{'':58} {'':>7} {'MiB':>5} {'MiB':>5}  {'start':18} {'PSS':18} {'held':18}")
    for name, own in readings.items():
        if not known(own.start_seconds):
            print(f"{name:58} does not start here")
            continue
        figures = {figure: values for figure, values in own.figures().items() if figure != "page s"}
        start, pss, held = (spread(known(values)).median for values in figures.values())
        ratios = (compare(values, readings[OURS].figures()[figure]) for figure, values in figures.items())
        cells = "" if name == OURS else " ".join(f"{ratio!s:18}" for ratio in ratios)
        print(f"{name:58} {start:7.2f} {pss:5.0f} {held:5.0f}  {cells}")
