"""What kind each browser is, and when a browser is a runaway."""

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from recyclery.config.settings import Browsers
from recyclery.decide.actions import ReapProcesses
from recyclery.decide.browsers import (
    NO_CPU_SECONDS,
    BrowserCounts,
    count_by_kind,
    runaway_reason,
    update_stalls,
)
from recyclery.decide.policy_state import StalledTask
from recyclery.decide.reap import find_reaps
from recyclery.observe.snapshot import CLOCK_TICK_SECONDS, Child, Orphans, Process, Snapshot
from support.snapshots import AT, CHILD, LIMIT, MIB, SETTINGS, child, policy_state, process, snapshot

LIMITS = Browsers(silent_seconds=300, max_percent=50, max_age_seconds=3600)
BUSY: dict[str, Any] = {"task_id": "b", "task_name": "scrape"}


def ticks(seconds: float) -> int:
    return round(seconds / CLOCK_TICK_SECONDS)


def used(browser: Process, seconds: float) -> Process:
    """Return a process that has used so much CPU time."""
    return replace(browser, cpu_ticks=ticks(seconds))


def silent_since(since: float, *members: Process, task_seen: float | None = None) -> StalledTask:
    """A silence at task b that began when these processes were as they are here."""
    return StalledTask(
        task_id="b",
        task_seen=since if task_seen is None else task_seen,
        since=since,
        python_ticks=0,
        browser_ticks={member.key: member.cpu_ticks for member in members},
    )


def late(seconds: float, *children: Child) -> Snapshot:
    """A snapshot so long after the usual one."""
    return replace(snapshot(*children), at=AT + seconds)


def reaped(seen: Snapshot, silence: StalledTask, limits: Browsers = LIMITS) -> list[ReapProcesses]:
    settings = structs.replace(SETTINGS, browsers=limits)
    return find_reaps(seen, policy_state(stalls={CHILD: silence}), settings)


def test_each_browser_is_counted_as_one_kind() -> None:
    running = process(40, started=95.0)
    kept = (process(50, started=60.0, name="chromedriver"), process(51, started=60.1, parent=50))
    left = process(60, started=80.0)
    busy = child(running, *kept, left, kept=(50,), **BUSY)
    seen = replace(
        snapshot(busy, orphans=(Orphans(CHILD, (process(70, session=90),)),)),
        foreign_browsers=(process(80, session=80), process(81, session=80, parent=80)),
    )
    expected = BrowserCounts(live=3, in_use=2, kept=1, leftovers=1, runaway=0, orphans=1, strangers=1)
    assert count_by_kind(seen, {}, LIMITS) == expected


def test_a_browser_that_a_silent_task_hangs_at_is_counted_as_a_runaway() -> None:
    browser = process(40, started=95.0)
    seen = late(400, child(used(browser, 390), **BUSY))
    census = count_by_kind(seen, {CHILD: silent_since(AT, browser)}, LIMITS)
    assert (census.live, census.in_use, census.runaway) == (1, 0, 1)


def test_a_browser_that_its_child_keeps_is_no_leftover_nor_are_its_crashpad_handlers() -> None:
    kept = (
        process(50, started=60.0, name="chromedriver", parent=20),
        process(51, started=60.1, parent=50),
        process(52, started=60.2, session=52, name="chrome_crashpad"),
    )
    left = (process(60, started=80.0), process(61, started=80.1, session=61, name="chrome_crashpad"))
    (action,) = find_reaps(snapshot(child(*kept, *left, kept=(50,))), policy_state(), SETTINGS)
    assert (action.cause, {member.pid for member in action.processes}) == ("leftovers", {60, 61})


def test_a_kept_browser_that_is_kept_no_longer_is_a_leftover() -> None:
    browser = process(50, started=60.0, name="chromedriver")
    assert find_reaps(snapshot(child(browser, kept=(50,))), policy_state(), SETTINGS) == []
    (action,) = find_reaps(snapshot(child(browser)), policy_state(), SETTINGS)
    assert action.cause == "leftovers"


def test_a_busy_browser_of_a_silent_task_is_a_runaway() -> None:
    browser = process(40, started=95.0)
    (action,) = reaped(late(400, child(used(browser, 390), **BUSY)), silent_since(AT, browser))
    assert (action.cause, [member.pid for member in action.processes]) == ("runaway", [40])
    assert action.reason == "scrape has done nothing for 400 s, in which the browser used 98% of a core"


def test_all_of_a_browsers_processes_count_those_begun_meanwhile_too() -> None:
    browser = (process(40, started=95.0), process(41, started=96.0, parent=40))
    renderer = process(42, started=AT + 10, parent=40)
    busy = child(used(browser[0], 100), used(browser[1], 100), used(renderer, 130), **BUSY)
    assert len(reaped(late(400, busy), silent_since(AT, *browser))) == 1


def test_what_a_browser_used_before_its_task_fell_silent_does_not_count() -> None:
    browser = used(process(40, started=95.0), 1000)
    assert reaped(late(400, child(used(browser, 1300), **BUSY)), silent_since(AT, browser)) == []


def test_a_silent_tasks_browser_over_its_share_of_the_limit_is_a_runaway() -> None:
    assert LIMIT == 1000 * MIB
    for mib, expected in ((500, []), (501, ["runaway"])):
        seen = late(400, child(process(40, started=95.0, mib=mib), **BUSY))
        assert [action.cause for action in reaped(seen, silent_since(AT))] == expected
    (action,) = reaped(seen, silent_since(AT))
    assert (
        action.reason
        == "scrape has done nothing for 400 s, and the browser holds 501 MiB, over 50 % of the limit"
    )


def test_a_silent_tasks_old_browser_is_a_runaway() -> None:
    seen = late(3700, child(process(40, started=AT + 50), task_id="b"))
    assert reaped(seen, silent_since(AT + 3000, task_seen=AT)) != []
    (action,) = reaped(seen, silent_since(AT + 3000, task_seen=AT))
    assert (
        action.reason == "its task has done nothing for 700 s, and has had the browser for 3650 s, over 3600 s"
    )


def test_a_kept_browser_is_as_old_as_the_task_that_has_it() -> None:
    kept = child(process(40, started=50.0), kept=(40,), **BUSY)
    assert reaped(late(3700, kept), silent_since(AT + 3000, task_seen=AT + 2000)) == []


@pytest.mark.parametrize("seconds", [0, 299])
def test_a_task_that_is_silent_for_less_than_that_keeps_its_browser(seconds: float) -> None:
    browser = process(40, started=95.0, mib=900)
    assert reaped(late(seconds, child(used(browser, 300), **BUSY)), silent_since(AT, browser)) == []


def test_a_silent_task_whose_browser_is_well_keeps_it() -> None:
    browser = process(40, started=95.0, mib=300)
    assert reaped(late(3000, child(used(browser, 600), **BUSY)), silent_since(AT, browser)) == []


def test_silent_seconds_of_0_turn_it_off() -> None:
    browser = process(40, started=95.0, mib=900)
    limits = structs.replace(LIMITS, silent_seconds=0.0)
    assert reaped(late(9000, child(used(browser, 9000), **BUSY)), silent_since(AT, browser), limits) == []


def test_a_child_without_a_silence_has_no_runaway() -> None:
    browser = (process(40, started=95.0, mib=900),)
    assert runaway_reason(browser, child(*browser), None, late(9000), LIMITS) is None


def test_what_has_ended_of_a_runaway_is_not_killed() -> None:
    ended = process(40, started=95.0, state="Z", mib=900)
    assert reaped(late(400, child(ended, **BUSY)), silent_since(AT)) == []


def test_a_leftover_is_killed_as_one_though_it_is_busy_too() -> None:
    left = process(40, started=80.0)
    actions = reaped(late(400, child(used(left, 400), **BUSY)), silent_since(AT, left))
    assert [action.cause for action in actions] == ["leftovers"]


def python_used(seconds: float, task_id: str | None = "b") -> Child:
    """The child at a task, its Python having used so much CPU time, with a browser that used 7 s."""
    busy = child(used(process(40, started=95.0), 7), task_id=task_id)
    leader, *rest = busy.processes
    return replace(busy, processes=(used(leader, seconds), *rest))


def test_a_silence_goes_on_while_python_uses_no_cpu_to_speak_of() -> None:
    first = update_stalls({}, late(0, python_used(5)))
    assert first[CHILD].since == AT
    assert update_stalls(first, late(50, python_used(5 + NO_CPU_SECONDS))) == first


def test_a_silence_ends_when_python_works_and_a_new_one_begins_with_what_its_browsers_have_used() -> None:
    first = update_stalls({}, late(0, python_used(5)))
    silence = update_stalls(first, late(50, python_used(5.2)))[CHILD]
    assert (silence.task_seen, silence.since, silence.python_ticks) == (AT, AT + 50, ticks(5.2))
    assert list(silence.browser_ticks.values()) == [ticks(7)]


def test_the_next_task_is_not_silent_for_the_last_one() -> None:
    first = update_stalls({}, late(0, python_used(5)))
    silence = update_stalls(first, late(50, python_used(5, "c")))[CHILD]
    assert (silence.task_seen, silence.since) == (AT + 50, AT + 50)


def test_a_child_without_a_task_is_not_silent() -> None:
    first = update_stalls({}, late(0, python_used(5)))
    assert update_stalls(first, late(50, python_used(5, None))) == {}
