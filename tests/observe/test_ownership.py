"""Whose process is it."""

from recyclery.observe.ownership import assign_owners, browser_groups, count_browsers
from recyclery.observe.snapshot import Owner, Process

MAIN = 10
MAINS = {MAIN: "slow"}
CHILD = Owner("slow", 20, 2000)


def process(
    pid: int, *, parent: int = 1, session: int = 20, name: str = "chromium", start: int = 0, state: str = "S"
) -> Process:
    return Process(
        pid=pid, start_ticks=start or pid * 100, parent=parent, session=session, state=state, name=name
    )


def child(state: str = "S") -> Process:
    return process(20, parent=MAIN, name="python", state=state)


def test_a_session_leader_below_a_pools_main_process_is_its_child() -> None:
    ownership = assign_owners([child()], MAINS, {}, {})
    assert list(ownership.living) == [CHILD]


def test_a_main_process_child_that_leads_no_session_yet_owns_nothing() -> None:
    starting = process(20, parent=MAIN, session=1, name="python")
    assert assign_owners([starting], MAINS, {}, {}).living == {}


def test_what_shares_a_childs_session_is_the_childs() -> None:
    ownership = assign_owners([child(), process(21, parent=20), process(22)], MAINS, {}, {})
    assert {member.pid for member in ownership.living[CHILD]} == {20, 21, 22}


def test_the_session_of_a_dead_child_is_remembered_from_the_reading_before() -> None:
    before = assign_owners([child(), process(22)], MAINS, {}, {})
    after = assign_owners([process(22)], MAINS, {}, before.sessions)
    assert [member.pid for member in after.dead[CHILD]] == [22]


def test_a_defunct_child_counts_as_dead() -> None:
    before = assign_owners([child(), process(22)], MAINS, {}, {})
    after = assign_owners([child("Z"), process(22)], MAINS, {}, before.sessions)
    assert CHILD in after.dead
    assert CHILD not in after.living


def test_a_marker_tells_the_dead_owner_to_a_governor_that_never_saw_the_child() -> None:
    ownership = assign_owners([process(21), process(22)], MAINS, {21: CHILD}, {})
    assert {member.pid for member in ownership.dead[CHILD]} == {21, 22}


def test_a_marked_process_outside_the_session_is_the_childs_and_lends_its_session_to_nobody() -> None:
    crashpad, stranger = process(30, session=30, name="chrome_crashpad"), process(31, session=30)
    ownership = assign_owners([child(), crashpad, stranger], MAINS, {30: CHILD}, {})
    assert {member.pid for member in ownership.living[CHILD]} == {20, 30}


def test_what_a_child_started_in_a_new_session_is_found_by_its_parent() -> None:
    ownership = assign_owners([child(), process(40, parent=20, session=40, name="sh")], MAINS, {}, {})
    assert {member.pid for member in ownership.living[CHILD]} == {20, 40}


def test_a_child_whose_pid_was_given_to_a_stranger_is_dead() -> None:
    stranger = process(20, parent=1, session=5, start=9999)
    ownership = assign_owners([stranger, process(22)], MAINS, {}, {20: CHILD})
    assert [member.pid for member in ownership.dead[CHILD]] == [22]


def test_a_strangers_browser_belongs_to_nobody() -> None:
    ownership = assign_owners(
        [child(), process(50, session=50), process(51, parent=50, session=50)], MAINS, {}, {}
    )
    owned = {
        member.pid for members in [*ownership.living.values(), *ownership.dead.values()] for member in members
    }
    assert owned == {20}


def test_a_session_nobody_is_in_any_more_is_forgotten() -> None:
    assert assign_owners([], MAINS, {}, {20: CHILD}).sessions == {}


def test_each_browser_is_the_tree_below_its_topmost_process() -> None:
    members = [
        child(),
        process(21, parent=20, name="chromedriver"),
        process(22, parent=21),
        process(23, parent=22),
        process(31, parent=1),
        process(32, parent=31),
    ]
    groups = {tuple(member.pid for member in group) for group in browser_groups(members, 20)}
    assert groups == {(21, 22, 23), (31, 32)}


def test_a_crashpad_handler_is_no_browser_by_itself_and_a_defunct_one_is_none_any_more() -> None:
    members = [
        process(21, parent=20, name="chromedriver"),
        process(30, session=30, name="chrome_crashpad"),
        process(40, parent=20, name="chromedriver", state="Z"),
    ]
    assert count_browsers(members, 20) == 1


def test_a_browser_that_no_pool_started_is_a_stranger() -> None:
    strangers = [process(50, session=50), process(51, parent=50, session=50)]
    mine = process(22)
    other = process(60, session=60, name="firefox")
    ended = process(52, session=50, state="Z")
    assert assign_owners([child(), mine, *strangers, other, ended], MAINS, {}, {}).foreign_browsers == tuple(
        strangers
    )


def test_a_browser_of_a_workers_main_process_is_no_stranger() -> None:
    main = process(MAIN, name="python", session=1)
    started = [main, process(50, parent=MAIN, session=1), process(51, parent=50, session=1)]
    assert assign_owners(started, MAINS, {}, {}).foreign_browsers == ()


def test_while_no_worker_is_known_nobody_is_a_stranger() -> None:
    assert assign_owners([process(50, session=50)], {}, {}, {}).foreign_browsers == ()


def test_crashpad_handlers_belong_to_the_browser_that_had_just_started() -> None:
    members = [
        process(21, parent=20, name="chromedriver", start=1000),
        process(22, parent=21, start=1010),
        process(23, session=23, name="chrome_crashpad", start=1020),
        process(31, parent=20, name="chromedriver", start=1100),
        process(32, parent=31, start=1110),
        process(33, session=33, name="chrome_crashpad", start=1120),
    ]
    groups = {tuple(member.pid for member in group) for group in browser_groups(members, 20)}
    assert groups == {(21, 22, 23), (31, 32, 33)}


def test_a_crashpad_handler_whose_browser_is_gone_belongs_to_none() -> None:
    members = [process(22, start=1000), process(23, session=23, name="chrome_crashpad", start=9000)]
    groups = {tuple(member.pid for member in group) for group in browser_groups(members, 20)}
    assert groups == {(22,), (23,)}
