"""The document that `top` asks for each second."""

from dataclasses import replace

import pytest

from recyclery.control.status_schema import Event, Status
from recyclery.http.status import ReadPss, build_status, leave_unread
from recyclery.state.board import KEPT, EventLog
from support.snapshots import AT, MIB, board, child, process, slow_view, snapshot


def build(pss_of: ReadPss, events: EventLog) -> Status:
    busy = child(process(30, mib=200), task_id="1", task_name="sync", task_started=AT - 12)
    seen = snapshot(busy, pools=(slow_view(holding=True, queue_depth=4),))
    return build_status(replace(board(), events=events), seen, pss_of)


def test_the_quick_status_has_levels_tasks_and_holds_but_reads_no_pss() -> None:
    document = build(leave_unread, EventLog())
    levels = document.container
    assert [levels.retire_bytes, levels.high_bytes, levels.hard_bytes] == [800 * MIB, 900 * MIB, 950 * MIB]
    (busy,) = document.pools["slow"].children
    assert (busy.task, busy.task_seconds) == ("sync", 12.0)
    assert (busy.tree_bytes, busy.tree_browser_bytes) == (260 * MIB, 200 * MIB)
    assert (busy.pss_bytes, document.governor.pss_bytes) == (0, 0)
    assert (document.pools["slow"].holding, document.pools["fast"].holding) == (True, False)


def test_a_whole_status_reads_the_pss_of_every_process() -> None:
    (busy,) = build(lambda _: MIB, EventLog()).pools["slow"].children
    assert (busy.python_bytes, busy.browser_bytes, busy.pss_bytes) == (MIB, MIB, 2 * MIB)


def test_recent_events_have_their_age_newest_first() -> None:
    events = EventLog()
    events.add(AT - 60, "retire slow/20: why", done=True)
    events.add(AT - 2, "hold slow: why; refused", done=False)
    assert build(leave_unread, events).recent == [
        Event(2.0, "hold slow: why; refused", done=False),
        Event(60.0, "retire slow/20: why", done=True),
    ]


def test_a_repeated_event_is_kept_once() -> None:
    events = EventLog()
    events.add(1, "a")
    for at in (2, 3, 4):
        events.add(at, "b")
    assert [(event.at, event.text) for event in events.newest_first()] == [(4, "b"), (1, "a")]


@pytest.mark.parametrize("noted", [KEPT, KEPT + 20])
def test_the_event_log_is_bounded(noted: int) -> None:
    events = EventLog()
    for number in range(noted):
        events.add(number, str(number))
    assert len(events.newest_first()) == KEPT
