"""Output that the docs quote: docs and product agree. The start banner is exact."""

import json
import re
from functools import cache

import pytest

from contracts import product
from contracts.frozen import frozen
from contracts.sources import ROOT, strings

BANNER = ["🔨 Starting Celery Worker", "ℹ  Processing queues: high,default", "ℹ  Worker name: fast"]
# Fields of f-strings (see sources), str.format and %.
FILLED_IN = re.compile(r"\{\w*\}|%[-\d.]*[sdgrf](?!\w)")
# A template with fewer fixed letters, and less than a third of the line, matches too much.
LEAST_FIXED = 8
QUOTES = [tuple(line.split(" ", 1)) for line in frozen("log_lines")]


@cache
def templates() -> frozenset[str]:
    """Return the lines of all string literals, with their fields."""
    return frozenset(" ".join(line.split()) for text in strings() for line in text.split("\n"))


def is_made_by(template: str, line: str) -> bool:
    """Tell whether a template can produce a line."""
    fixed = FILLED_IN.split(template)
    if not all(part in line for part in fixed):
        return False
    pattern = ".*".join(map(re.escape, fixed))
    letters = sum(map(str.isalnum, "".join(fixed)))
    enough = letters >= LEAST_FIXED or letters * 3 >= sum(map(str.isalnum, line))
    return enough and re.fullmatch(pattern, line) is not None


def can_be_printed(line: str) -> bool:
    """Tell whether the product can print a line; with `…` at its end, a line that starts with it."""
    if not line.endswith("…"):
        return any(is_made_by(template, line) for template in templates())
    start = line.removesuffix("…")
    known = [template for template in templates() if start[-LEAST_FIXED:] in template]
    return any(is_made_by(template[:end], start) for template in known for end in range(1, len(template) + 1))


@pytest.mark.parametrize(("page", "quote"), QUOTES)
def test_a_quoted_line_is_in_the_docs_and_in_the_product(page: str, quote: str) -> None:
    said = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    line = " ".join(quote.split())
    assert line.removesuffix("…") in said, f"{page} no longer quotes {quote!r}"
    assert can_be_printed(line), f"{page} quotes {quote!r}, which no string of the product produces any more"


def test_the_start_banner_of_a_worker_is_exact() -> None:
    assert product.banner(queues="high,default", name="fast") == BANNER


def test_a_line_of_a_worker_is_prefixed_with_its_pool() -> None:
    assert product.format_output("text", "slow", b"some words") == b"slow | some words\n"


@pytest.mark.parametrize(
    ("line", "known"),
    [
        (
            b"[2026-11-22 10:00:00,123: INFO/MainProcess] some words",
            {"pool": "slow", "level": "info", "process": "MainProcess", "message": "some words"},
        ),
        (b"some words \xff", {"pool": "slow", "message": "some words \\xff"}),
    ],
)
def test_a_line_of_a_worker_in_json_has_the_frozen_keys(line: bytes, known: dict[str, str]) -> None:
    entry = json.loads(product.format_output("json", "slow", line))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", entry.pop("time"))
    assert entry == known
