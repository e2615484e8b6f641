"""What keys and news do."""

import pytest

from recyclery.top.text import format_age
from recyclery.top.view import (
    CTRL_Z,
    ReapBrowsers,
    RecyclePool,
    ScreenAction,
    View,
    press,
    press_all,
    read_keys,
    update_view,
)
from support.statuses import pool, status

VIEW = update_view(View(), status(), 1)


def after(*typed: bytes, view: View = VIEW) -> View:
    for keys in typed:
        view, _ = press_all(view, read_keys(keys))
    return view


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (b"q", [b"q"]),
        (b"\x03", [b"q"]),
        (b"\x1a", [CTRL_Z]),
        (b"\x1b[A\x1b[B", [b"k", b"j"]),
        (b"\x1bOA\x1bOB", [b"k", b"j"]),
        (b"kjrbyY?", [b"k", b"j", b"r", b"b", b"y", b"y", b"?"]),
        (b"\x1b[1;5q\x1b[5~\x1b", [b"\x1b[1;5q", b"\x1b[5~", b"\x1b"]),
        (b"x\xff", [b"x", b"\xff"]),
    ],
)
def test_keys_are_told_from_the_sequences_that_terminals_send(typed: bytes, keys: list[bytes]) -> None:
    assert read_keys(typed) == keys


def test_the_first_pool_is_chosen_until_another_is_and_no_further_than_the_last() -> None:
    assert [after(*keys).chosen for keys in ((), (b"j",), (b"j", b"j"), (b"j", b"k"), (b"k",))] == [
        "fast", "slow", "slow", "fast", "fast",
    ]  # fmt: skip


def test_the_chosen_pool_stays_chosen_while_it_exists() -> None:
    chosen = after(b"j")
    assert update_view(chosen, status(), 2).chosen == "slow"
    assert update_view(chosen, status(pools={"fast": pool("fast")}), 2).chosen == "fast"


@pytest.mark.parametrize(("key", "order"), [(b"r", RecyclePool("fast")), (b"b", ReapBrowsers())])
def test_an_order_is_given_only_after_a_yes(key: bytes, order: object) -> None:
    asked, intents = press_all(VIEW, read_keys(key))
    assert (asked.question, intents) == (order, [])
    answered, intents = press_all(asked, read_keys(b"y"))
    assert (answered.question, intents) == (None, [order])


@pytest.mark.parametrize("key", [b"n", b"r", b"j", b"\r", b"\x1b", b"\x1b[A"])
def test_whatever_is_not_a_yes_is_a_no(key: bytes) -> None:
    view, intents = press_all(after(b"r"), read_keys(key))
    assert (view, intents) == (VIEW, [])


def test_a_yes_that_was_typed_before_the_question_could_be_read_is_none() -> None:
    view, intents = press_all(VIEW, read_keys(b"ry"))
    assert (view.question, intents) == (RecyclePool("fast"), [])


def test_a_question_is_of_the_pool_that_was_chosen_then() -> None:
    asked = update_view(after(b"r"), status(pools={"slow": pool("slow")}), 2)
    assert press(asked, b"y")[1] == RecyclePool("fast")


def test_without_a_pool_nothing_can_be_recycled() -> None:
    assert press(View(), b"r") == (View(), None)


def test_quit_and_suspend_work_at_any_time() -> None:
    for view in (View(), after(b"r")):
        assert [press_all(view, read_keys(key))[1] for key in (b"q", b"\x03", b"\x1a")] == [
            [ScreenAction.EXIT], [ScreenAction.EXIT], [ScreenAction.SUSPEND],
        ]  # fmt: skip


def test_oom_kills_are_news_only_since_somebody_looks() -> None:
    view = update_view(update_view(View(), status(oom_kills=2), 1), status(oom_kills=5), 2)
    assert view.oom_kills_before == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "0s"),
        (99, "99s"),
        (100, "1m40s"),
        (5999, "99m59s"),
        (6000, "1h40m"),
        (172799, "47h59m"),
        (5e5, "5d18h"),
    ],
)
def test_ages_are_short_and_readable(seconds: float, text: str) -> None:
    assert format_age(seconds) == text
