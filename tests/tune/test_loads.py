"""What is said of tasks that came at their own times."""

from dataclasses import replace

from recyclery.tune.output import format_loads
from recyclery.tune.window import OpenLoopWindow
from support.tune_windows import window

KEPT_UP = OpenLoopWindow(
    load="85%", offered_per_second=1.0, backlog_middle=2, backlog_end=3, unfinished=0, window=window(2)
)


def test_a_load_is_shown_with_its_times_and_what_was_not_done() -> None:
    (line,) = [line for line in format_loads([KEPT_UP]) if "85%" in line]
    assert line.split() == ["85%", "1/s", *("2.00", "s") * 3, "2,", "3"]


def test_a_backlog_that_grows_is_more_than_the_level_can_do() -> None:
    lines = format_loads([replace(KEPT_UP, backlog_end=30, unfinished=20)])
    assert any("2, 30, 20 never: more than it can do" in line for line in lines)


def test_without_a_load_nothing_is_said() -> None:
    assert not format_loads([])
