"""What is left of browsers that somebody else killed: halves, folders, sessions elsewhere; and strangers."""

from dataclasses import replace
from pathlib import Path

from recyclery.decide.actions import Action, EndGridSession, KillForeign, RemoveFiles
from recyclery.decide.policy import decide
from recyclery.decide.policy_state import Counters, PolicyState
from recyclery.decide.pressure import ALERT_SECONDS, poll_interval_seconds
from recyclery.decide.reap import DRIVER_EXIT_SECONDS, PROFILE_REMOVAL_SECONDS, find_reaps, kill_foreign
from recyclery.decide.warnings import find_warnings
from recyclery.observe.snapshot import EndedTask, LeftoverFiles, OpenSessions, Process, Snapshot
from support.snapshots import AT, CHILD, LEARNED, SETTINGS, child, policy_state, process, slow_view, snapshot

DRIVER = process(40, started=95.0, name="chromedriver", parent=20)
BROWSER = process(41, started=95.1, parent=40)
HANDLER = process(42, started=95.2, session=42, name="chrome_crashpad")
PROFILE = Path("/tmp/org.chromium.Chromium.scoped_dir.a")
AGO = AT - DRIVER_EXIT_SECONDS - 0.01


def seen(*members: Process, **rest: object) -> Snapshot:
    """The child at a task with these browser processes."""
    return replace(snapshot(child(*members, task_id="b")), **rest)  # type: ignore[arg-type]


def reaped(found: Snapshot) -> list[tuple[str, set[int]]]:
    return [
        (action.cause, {member.pid for member in action.processes})
        for action in find_reaps(found, policy_state(), SETTINGS)
    ]


def test_a_browser_whose_chromedriver_has_been_gone_for_a_moment_is_killed_with_its_handlers() -> None:
    alone = replace(BROWSER, parent=1)
    assert reaped(seen(alone, HANDLER, orphaned_browsers={alone.key: AGO})) == [("strays", {41, 42})]
    assert reaped(seen(alone, HANDLER, orphaned_browsers={alone.key: AGO + 0.1})) == []


def removed(folder: str, seconds_ago: float) -> bool:
    """Return whether what a browser left so long ago is removed."""
    left = LeftoverFiles(Path("/tmp") / folder, AT - seconds_ago)
    return any(isinstance(action, RemoveFiles) for action in find_all(seen(leftover_files=(left,))))


def find_all(found: Snapshot) -> list[Action]:
    return decide(found, LEARNED, SETTINGS)


def test_a_profile_that_its_maker_removes_gets_the_time_for_that() -> None:
    for folder in ("rust_mozprofileA", "playwright_firefoxdev_profile-A"):
        assert not removed(folder, PROFILE_REMOVAL_SECONDS - 0.1)
        assert removed(folder, PROFILE_REMOVAL_SECONDS)
    assert removed(PROFILE.name, 0.1)


ENDED = (EndedTask("forgets", 60.0, 70.0), EndedTask("quits", 70.05, 90.0))


def left_by(*browsers: Process, ended: tuple[EndedTask, ...] = ENDED) -> list[tuple[str | None, str]]:
    """Which tasks left these browsers, and what is said of it, while another task runs."""
    busy = child(*browsers, task_id="b", ended_tasks=ended)
    reaps = find_reaps(snapshot(busy), policy_state(), SETTINGS)
    return [(reap.task, reap.reason) for reap in reaps if reap.cause == "leftovers"]


def test_a_browser_is_charged_to_the_task_that_started_it_however_late_it_is_found() -> None:
    assert left_by(process(40, started=65.0)) == [("forgets", "forgets left them when it ended 30.0 s ago")]
    assert left_by(process(40, started=80.0)) == [("quits", "quits left them when it ended 10.0 s ago")]


def test_the_browsers_of_two_tasks_are_told_apart() -> None:
    tasks = [task for task, _ in left_by(process(40, started=65.0), process(50, started=80.0))]
    assert tasks == ["forgets", "quits"]


def test_where_two_tasks_may_have_started_a_browser_nobody_is_blamed() -> None:
    close = (EndedTask("forgets", 60.0, 70.004), EndedTask("quits", 70.005, 90.0))
    ((task, reason),) = left_by(process(40, started=70.0), ended=close)
    assert task is None
    assert reason == "the last task that can have started them ended 10.0 s ago"


def test_where_the_tasks_times_are_not_known_nobody_is_blamed() -> None:
    assert [task for task, _ in left_by(process(40, started=65.0), ended=ENDED[1:])] == [None]


def test_crashpad_handlers_that_outlast_a_clean_quit_are_left_to_end_by_themselves() -> None:
    assert reaped(seen(HANDLER)) == []


def test_a_browser_that_no_chromedriver_started_is_left_to_its_task() -> None:
    assert reaped(seen(replace(BROWSER, parent=1))) == []


def test_a_chromedriver_whose_browser_left_its_profile_behind_is_killed() -> None:
    left = LeftoverFiles(PROFILE, AT - PROFILE_REMOVAL_SECONDS, frozenset({DRIVER.key}))
    assert reaped(seen(DRIVER, leftover_files=(left,))) == [("strays", {40})]
    removing = LeftoverFiles(PROFILE, AT - PROFILE_REMOVAL_SECONDS + 0.1, frozenset({DRIVER.key}))
    assert reaped(seen(DRIVER, leftover_files=(removing,))) == []
    assert reaped(seen(DRIVER, leftover_files=(replace(left, since=AGO + 0.1),))) == []


def test_a_chromedriver_between_two_browsers_is_left_to_its_task() -> None:
    socket_folder = LeftoverFiles(Path("/tmp/org.chromium.Chromium.b"), AGO)
    assert reaped(seen(DRIVER, leftover_files=(socket_folder,))) == []


def test_a_chromedriver_that_has_another_browser_is_left_to_its_task() -> None:
    left = LeftoverFiles(PROFILE, AGO, frozenset({DRIVER.key}))
    assert reaped(seen(DRIVER, BROWSER, leftover_files=(left,))) == []


def test_defunct_halves_are_left_to_their_parent() -> None:
    left = LeftoverFiles(PROFILE, AGO, frozenset({DRIVER.key}))
    assert reaped(seen(replace(DRIVER, state="Z"), leftover_files=(left,))) == []


def cleaned(found: Snapshot) -> list[Path]:
    actions = decide(found, LEARNED, SETTINGS)
    return [
        left.folder for action in actions if isinstance(action, RemoveFiles) for left in action.leftover_files
    ]


def test_folders_of_browsers_that_are_gone_are_removed() -> None:
    assert cleaned(seen(leftover_files=(LeftoverFiles(PROFILE, AT),))) == [PROFILE]


def test_a_profile_is_given_the_time_that_a_clean_quit_takes() -> None:
    left = LeftoverFiles(PROFILE, AT - PROFILE_REMOVAL_SECONDS, frozenset({DRIVER.key}))
    assert cleaned(seen(leftover_files=(left,))) == [PROFILE]
    assert cleaned(seen(leftover_files=(replace(left, since=AGO + 0.1),))) == []


def test_each_session_that_a_dead_child_has_open_elsewhere_is_ended() -> None:
    found = seen(open_sessions=(OpenSessions(CHILD, ("a1", "b2")),))
    actions = [action for action in decide(found, LEARNED, SETTINGS) if isinstance(action, EndGridSession)]
    assert actions == [EndGridSession(CHILD, "a1"), EndGridSession(CHILD, "b2")]


def test_while_something_is_about_to_go_the_next_look_comes_soon() -> None:
    for found in (
        seen(leftover_files=(LeftoverFiles(PROFILE, AT),)),
        seen(orphaned_browsers={BROWSER.key: AT}),
    ):
        assert poll_interval_seconds(found, None, SETTINGS) == ALERT_SECONDS


STRANGERS = (process(80, session=80), process(81, session=80, parent=80))


def said(past: PolicyState, *strangers: Process) -> list[str]:
    found = replace(snapshot(child(), pools=(slow_view(),)), foreign_browsers=strangers)
    return [notice.text for notice in find_warnings(found, past, SETTINGS)]


def test_a_strangers_browser_is_told_once_as_one_with_the_way_to_be_rid_of_it() -> None:
    assert said(LEARNED, *STRANGERS) == [
        "1 browser that no pool started: chromium 80; left alone, `recyclery reap --strangers` kills"
    ]
    known = replace(LEARNED, known_foreign=frozenset({STRANGERS[0].key}))
    assert said(known, *STRANGERS) == []


def test_strangers_are_killed_only_when_that_is_asked_for() -> None:
    found = replace(snapshot(child()), foreign_browsers=STRANGERS)
    assert find_reaps(found, policy_state(), SETTINGS) == []
    (action,) = kill_foreign(found)
    assert isinstance(action, KillForeign)
    assert action.processes == STRANGERS
    assert list(kill_foreign(snapshot(child()))) == []


def test_what_a_browser_started_while_it_was_killed_is_not_counted_as_another() -> None:
    main = Process(pid=70, start_ticks=1, parent=20, session=20, state="S", name="chromium")
    late = Process(pid=71, start_ticks=2, parent=70, session=20, state="S", name="chromium")
    other = Process(pid=72, start_ticks=3, parent=20, session=20, state="S", name="chromium")
    once = Counters().with_reaped([main], owner_pid=20)
    assert once.reaped == 1
    assert once.with_reaped([late], owner_pid=20).reaped == 1
    assert once.with_reaped([main, late], owner_pid=20).reaped == 1
    assert once.with_reaped([late, other], owner_pid=20).reaped == 2
