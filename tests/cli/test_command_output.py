"""The text that `recyclery status` and `recyclery reap` print."""

from msgspec.structs import replace

from recyclery.control.client import format_browsers, format_reaped
from recyclery.control.status_schema import BrowserStatus

CALM = BrowserStatus(
    live=2, orphans=0, defunct=0, reaped=7, in_use=2, kept=0, leftovers=0, runaway=0, strangers=0, grid_ended=0
)


def test_browsers_take_one_line_while_none_needs_attention() -> None:
    assert format_browsers(CALM) == ["browsers  2 in use, 7 reaped so far"]


def test_kept_browsers_and_those_that_need_attention_are_counted_where_there_are_any() -> None:
    assert format_browsers(replace(CALM, kept=1, runaway=1, strangers=3, grid_ended=2)) == [
        "browsers  2 in use (1 kept for next tasks), 7 reaped so far",
        "          1 runaway, 3 strangers",
        "          2 sessions of dead children ended on the Grid",
    ]


def test_the_lines_about_browsers_fit_a_terminal_at_worst() -> None:
    worst = BrowserStatus(**dict.fromkeys(BrowserStatus.__struct_fields__, 999))
    assert max(map(len, format_browsers(worst))) <= 80


def test_reap_prints_a_line_for_all_that_was_killed_and_what_was_left_alone() -> None:
    answer = {"killed": ["reap orphans of slow/20: killed chromium"], "in_use": 1, "strangers": 2}
    assert format_reaped(answer).splitlines() == [
        "reap orphans of slow/20: killed chromium",
        "left alone, as no pool started them: 2 (--strangers kills)",
    ]
    assert format_reaped({"killed": [], "in_use": 1, "strangers": 0}) == "nothing to reap: browsers in use: 1"
