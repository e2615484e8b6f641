"""What a frame looks like: it fits, and what is wrong stands first."""

import pytest

from recyclery.common.pool_state import PoolState
from recyclery.control.status_schema import Event, Status
from recyclery.top.frame import Screen, draw_frame, draw_page
from recyclery.top.text import compose_screen, paint_plain, paint_styled
from recyclery.top.view import Disconnected, Message, ReapBrowsers, RecyclePool, View, update_view
from support.statuses import MIB, child, drains, pool, status, with_browsers

LONG_TASK = "backoffice.tasks.documents.synchronise_documents_of_session"
WORST = with_browsers(
    status(
        Event(
            3,
            "reap leftovers of slow/20: killed chromedriver, 11 chromium; " + "its task has ended; " * 12,
            True,
        ),
        Event(90000.4, "retire slow/20: 812 MiB; refused: no", False),
        pools={
            "fast": pool("fast", state=PoolState.NOT_ANSWERING, queue_depth=99999, successor=drains("fast-b")),
            "a-pool-with-a-name-that-is-much-too-long": pool(
                "slow",
                *(child(4000000 + n, LONG_TASK, tree_bytes=1280 * MIB, task_seconds=5e5) for n in range(9)),
                draining=[drains("slow-b", LONG_TASK, LONG_TASK)],
                recycles={"budget": 99, "max_tasks": 990, "replace": 9, "hung": 3, "preempt": 9, "died": 99},
                queues=["low", "x" * 90],
            ),
        },
        floor_mib=990,
        oom_kills=3,
        parked=12,
    ),
    **dict.fromkeys(("runaway", "orphans", "leftovers", "defunct", "strangers"), 999),
)


def screen(width: int = 80, height: int = 24, now: float = 100.0) -> Screen:
    return Screen(width=width, height=height, host="host", clock="03:00:00 UTC", now=now)


def seen(document: Status, now: float = 100.0) -> View:
    return update_view(View(), document, now)


def frame(view: View, **rest: int) -> list[str]:
    return [paint_plain(line) for line in draw_frame(view, screen(**rest))]


def page(document: Status, width: int = 80) -> str:
    return "\n".join(paint_plain(line) for line in draw_page(document, screen(width=width)))


@pytest.mark.parametrize("size", [(80, 24), (120, 50), (40, 10), (20, 5), (12, 3), (5, 2), (1, 1)])
def test_a_frame_fills_a_window_and_is_never_larger(size: tuple[int, int]) -> None:
    width, height = size
    for view in (
        seen(WORST),
        update_view(seen(WORST), Disconnected("no " * 99), 101),
        update_view(View(), Disconnected("no " * 99), 101),
    ):
        lines = frame(view, width=width, height=height)
        assert len(lines) == height
        assert max(map(len, lines)) <= width


def test_in_80_columns_a_childs_row_is_80_wide() -> None:
    row = next(line for line in frame(seen(WORST), height=50) if "4000000" in line)
    assert row == "  4000000 backoffice.t..cuments_of_session  5d18h 1.25 GiB        -     3  5m12s"
    assert len(row) == 80


def test_a_long_tasks_name_is_cut_in_its_middle() -> None:
    text = page(status(pools={"slow": pool("slow", child(21, LONG_TASK))}))
    assert "backoffice.t..cuments_of_session" in text
    assert LONG_TASK in page(status(pools={"slow": pool("slow", child(21, LONG_TASK))}), width=120)


def test_what_is_wrong_stands_right_below_the_title_the_worst_first() -> None:
    lines = frame(update_view(seen(status()), WORST, 100))
    assert lines[0].startswith("recyclery top  4 WRONG")
    assert lines[1:5] == [
        "!! the kernel killed 3 processes for want of memory",
        "!! memory is above the hard level: 990 MiB cannot be reclaimed",
        "!! fast is not answering, 99999 tasks wait",
        " ! 12 tasks are parked after repeated deaths: recyclery parked list",
    ]


def test_the_title_says_that_all_is_well() -> None:
    lines = frame(seen(status()))
    assert lines[0] == "recyclery top  all is well  03:00:00 UTC  host"
    assert lines[1] == ""


def test_memory_is_shown_against_its_levels() -> None:
    lines = frame(seen(status(floor_mib=600)))
    assert lines[2] == "memory    [##########################........|...|.|..] 600 MiB of 1000 MiB, 60%"
    assert lines[3] == "          retire 800 MiB  high 900 MiB  hard 950 MiB  OOM kills 0"


def test_a_pool_that_takes_no_tasks_is_written_in_capitals() -> None:
    held = {"slow": pool("slow", holding=True, queue_depth=12), "fast": pool("fast", state=PoolState.BACKOFF)}
    text = page(status(pools=held))
    assert "slow  ON HOLD" in text
    assert "fast  BACKOFF" in text
    assert " ! slow is on hold and takes no tasks, 12 tasks wait" in text


def test_the_task_that_has_run_longest_is_the_first_of_its_pool_and_the_idle_are_last() -> None:
    children = [child(1), child(2, "b", task_seconds=5.0), child(3, "c", task_seconds=50.0), child(4)]
    lines = page(status(pools={"slow": pool("slow", *children)})).splitlines()
    assert [line.split()[0] for line in lines if line.startswith("        ")][-4:] == ["3", "2", "1", "4"]


def test_a_task_that_began_before_the_governor_has_no_time() -> None:
    assert "21 sync                                      60 MiB" in page(
        status(pools={"slow": pool("slow", child(21, "sync", task_seconds=None))})
    )


def test_a_workers_successor_and_what_the_former_one_still_does_are_told() -> None:
    text = page(
        status(pools={"slow": pool("slow", successor=drains("slow-b"), draining=[drains("slow", "a", "b")])})
    )
    assert "  slow-b starts to take over from slow\n  slow drains: a, b\n" in text


def test_the_last_actions_come_with_their_reasons_and_what_failed_is_marked() -> None:
    events = (
        Event(
            4,
            "retire slow/20: 812 MiB and the next task pass its 700 MiB; it leaves as soon as it has no task",
            True,
        ),
        Event(4000, "retire slow/19: 812 MiB; refused: busy", False),
    )
    assert page(status(*events)).splitlines()[-3:] == [
        "     4s ago  retire slow/20: 812 MiB and the next task pass its 700 MiB; it",
        "             leaves as soon as it has no task",
        "!66m40s ago  retire slow/19: 812 MiB; refused: busy",
    ]


def test_many_events_leave_room_for_the_pools() -> None:
    events = [Event(n, f"event {n} is told in a line", True) for n in range(30)]
    lines = frame(seen(status(*events)))
    assert sum("idle" in line for line in lines) == 2
    assert sum("event" in line for line in lines) == 8
    assert lines[-1] == "? for keys   22 lines do not fit"


def test_a_small_window_keeps_the_chosen_pool_and_drops_idle_children_first() -> None:
    many = {name: pool(name, child(5, f"{name}.task"), child(6)) for name in "abcdefgh"}
    lines = frame(View(status=status(pools=many), status_at=100, chosen="g"), height=14)
    assert any(line.startswith("> g  running") for line in lines)
    assert any("g.task" in line for line in lines)
    assert not any("idle" in line for line in lines)
    assert lines[-1].endswith("lines do not fit")


def test_a_governor_that_is_away_is_said_first_with_what_was_last_known_below() -> None:
    view = update_view(
        update_view(seen(status()), Disconnected("no supervisor answers on /x"), 101),
        Disconnected("no supervisor"),
        110,
    )
    lines = frame(view, now=113)
    assert lines[0].startswith("recyclery top  NO NEWS")
    assert lines[1] == "!! governor away, retrying (12s); below is how it was"
    assert lines[2] == "   no supervisor"
    assert any(line.startswith("> fast  running") for line in lines)
    assert frame(update_view(view, status(), 114), now=114)[0].startswith("recyclery top  all is well")


def test_a_governor_that_stops_answering_is_shown_before_it_counts_as_away() -> None:
    assert "!! governor has not answered for 6s; below is how it was" in frame(seen(status()), now=106)


def test_without_any_answer_yet_the_whole_reason_is_shown() -> None:
    lines = frame(
        update_view(View(), Disconnected("no supervisor answers: is it up, and the same " + "here " * 20), 100)
    )
    assert lines[1] == "!! governor away, retrying (0s)"
    assert " ".join(line.strip() for line in lines[2:5]).strip().endswith("here here")


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (
            View(question=RecyclePool("slow")),
            "recycle slow? a new worker takes over, running tasks are finished  y/n",
        ),
        (View(question=ReapBrowsers()), "reap? browsers that no task owns are killed now  y/n"),
        (View(message=Message("slow: slow-b takes tasks"), message_at=99), "slow: slow-b takes tasks"),
        (View(message=Message("long ago"), message_at=1), "? for keys"),
        (
            View(shows_help=True),
            "q quit  up/down or j/k choose a pool  r recycle it  b reap browsers  ? hide this",
        ),
    ],
)
def test_the_last_line_asks_answers_or_helps(view: View, text: str) -> None:
    assert frame(view)[-1] == text


def test_without_colour_nothing_but_the_cursor_is_steered() -> None:
    drawn = compose_screen(draw_frame(seen(WORST), screen()), 80, paint_plain)
    assert set(drawn.split("\x1b")[1:]) != set()
    assert all(part[:2] in {"[H", "[K", "[J"} for part in drawn.split("\x1b")[1:])
    assert "\x1b[1;31m" in compose_screen(draw_frame(seen(WORST), screen()), 80, paint_styled)


def test_a_row_that_ends_in_the_last_column_is_not_erased_there() -> None:
    rows = compose_screen(draw_frame(seen(WORST), screen(height=50)), 80, paint_plain).split("\r\n")
    assert [row.endswith("\x1b[K") for row in rows if "4000000" in row] == [False]


def test_what_came_from_elsewhere_cannot_steer_the_terminal() -> None:
    told = Event(1, "reap \x1b[2J\x07 of \u202e", True)
    text = page(status(told, pools={"sl\x1bow": pool("slow", child(1, "ta\x1b]0;sk"), queues=["l\now"])}))
    assert "\x1b" not in text
    assert "reap ?[2J? of ?" in text


def test_wide_characters_take_two_columns() -> None:
    row = next(
        line
        for line in page(status(pools={"p": pool("p", child(7, "任务" * 20))})).splitlines()
        if "任" in line
    )
    assert len(row) + sum(character in "任务" for character in row) == 80
