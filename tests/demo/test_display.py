"""What progress looks like."""

import io

from rich.console import Console

from recyclery_demo.display import Display, Frame, format_latency, format_recycles, plain_line
from recyclery_demo.picture import draw
from recyclery_demo.watch import Moment

FRAME = Frame(
    "recyclery",
    tasks=150,
    habit="45 of them forget their browser",
    fast_tasks=500,
    limit_bytes=1 << 30,
    memory_kind="cgroup v1",
)


def moment(elapsed_seconds: float = 83.0) -> Moment:
    return Moment(
        elapsed_seconds=elapsed_seconds,
        done=98,
        failed=1,
        pinged=412,
        fast_p95_seconds=0.0124,
        usage_bytes=840 << 20,
        floor_bytes=612 << 20,
        oom_kills=2,
        browsers=3,
        defunct=0,
        reaped=29,
        recycles={"budget": 7, "max_tasks": 9, "floor": 2},
    )


def test_a_plain_line_has_all_that_matters() -> None:
    assert plain_line(FRAME, moment()) == (
        "1:23  98/150 scraped, 1 failed | fast 412/500, p95 12 ms | 840 MiB, floor 612 MiB"
        " | browsers 3, recycles 18, OOM kills 2"
    )


def test_plain_lines_come_every_few_seconds_only() -> None:
    stream = io.StringIO()
    display = Display(FRAME, stream)
    for tenth in range(0, 100):
        display.show(moment(elapsed_seconds=tenth / 10))
    assert len(stream.getvalue().splitlines()) == 2


def test_the_picture_fits_a_terminal_of_80_columns() -> None:
    output = io.StringIO()
    Console(file=output, width=80).print(draw(FRAME, moment(), "Scraping"))
    lines = output.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert any("98/150  1 failed" in line for line in lines)
    assert any("18 (max_tasks 9, budget 7, floor 2)" in line for line in lines)


def test_before_the_first_moment_the_picture_says_what_goes_on() -> None:
    output = io.StringIO()
    Console(file=output, width=80).print(draw(FRAME, None, "Starting"))
    assert "Starting" in output.getvalue()


def test_the_most_frequent_reason_to_recycle_comes_first() -> None:
    assert format_recycles({"a": 1, "b": 5}) == "6 (b 5, a 1)"


def test_a_latency_nobody_measured_is_a_dash() -> None:
    assert [format_latency(seconds) for seconds in (None, 0.0124, 1.26)] == ["–", "12 ms", "1.3 s"]
