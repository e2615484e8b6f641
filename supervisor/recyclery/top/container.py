"""The rows on the container as a whole: its memory against its levels, its browsers."""

from __future__ import annotations

from collections.abc import Iterator

from recyclery.control.status_schema import BrowserStatus, ContainerStatus
from recyclery.sizes import format_bytes
from recyclery.top.rows import Rank, Row
from recyclery.top.text import Span, Style, line

INDENT = 10
LEAST_BAR = 10


def draw_memory(container: ContainerStatus, width: int) -> Iterator[Row]:
    """Yield a bar of what cannot be reclaimed, with the levels marked in it, and the figures."""
    style = judge_floor(container)
    limit = max(container.limit_bytes, 1)
    share = container.floor_bytes / limit
    told = f"{format_bytes(container.floor_bytes)} of {format_bytes(container.limit_bytes)}, {share:.0%}"
    bar = draw_bar(container, width - INDENT - len(told) - 3)
    yield Row(Rank.MEMORY, (Span(f"{'memory':{INDENT}}"), Span(f"{bar} {told}".lstrip(), style)))
    levels = "  ".join(
        f"{name} {format_bytes(size)}"
        for name, size in (
            ("retire", container.retire_bytes),
            ("high", container.high_bytes),
            ("hard", container.hard_bytes),
        )
    )
    kills = Span(f"OOM kills {container.oom_kills}", Style.BAD if container.oom_kills else Style.PLAIN)
    yield Row(Rank.FIGURES, (Span(" " * INDENT), Span(f"{levels}  "), kills))
    yield Row(
        Rank.DETAIL,
        line(
            f"{'':{INDENT}}usage {format_bytes(container.usage_bytes)}, "
            f"working set {format_bytes(container.working_set_bytes)}, "
            f"not the pools' {format_bytes(container.unattributed_bytes)}",
            Style.FAINT,
        ),
    )


def judge_floor(container: ContainerStatus) -> Style:
    """Return how bad it is that the floor is where it is."""
    if container.floor_bytes >= container.high_bytes:
        return Style.BAD
    return Style.WORRY if container.floor_bytes >= container.retire_bytes else Style.GOOD


def draw_bar(container: ContainerStatus, cells: int) -> str:
    """Return a bar of so many cells and its brackets; nothing where it would tell nothing."""
    if cells < LEAST_BAR:
        return ""
    limit = max(container.limit_bytes, 1)
    filled = min(cells, round(cells * container.floor_bytes / limit))
    bar = list("#" * filled + "." * (cells - filled))
    for level in (container.retire_bytes, container.high_bytes, container.hard_bytes):
        bar[min(cells - 1, cells * level // limit)] = "|"
    return f"[{''.join(bar)}]"


def draw_browsers(browsers: BrowserStatus) -> Row:
    """Return the row of browsers: what is used and was reaped, and what is wrong where something is."""
    kept = f" ({browsers.kept} kept)" if browsers.kept else ""
    wrong = {
        "runaway": browsers.runaway,
        "orphaned": browsers.orphans,
        "left over": browsers.leftovers,
        "defunct": browsers.defunct,
        "strangers": browsers.strangers,
    }
    told = "".join(f", {number} {kind}" for kind, number in wrong.items() if number)
    return Row(
        Rank.FIGURES,
        (
            Span(f"{'browsers':{INDENT}}{browsers.in_use} in use{kept}, {browsers.reaped} reaped so far"),
            Span(told, Style.WORRY),
        ),
    )
