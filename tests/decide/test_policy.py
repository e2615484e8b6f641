"""The rungs: when each acts, and when it does not."""

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import SLOW, Pool, Settings
from recyclery.decide import policy
from recyclery.decide.actions import (
    Action,
    PreemptChild,
    ReapProcesses,
    ReapZombies,
    ReplaceWorker,
    RetireChild,
    Warn,
)
from recyclery.decide.memory_levels import projected_peak_bytes
from recyclery.decide.memory_model import PoolModel
from recyclery.decide.policy_state import PolicyState
from recyclery.decide.warnings import find_warnings
from recyclery.observe.snapshot import (
    Child,
    Orphans,
    Owner,
    PoolView,
    Snapshot,
)
from support.snapshots import (
    AT,
    CHILD,
    LEARNED,
    MIB,
    SETTINGS,
    child,
    policy_state,
    process,
    slow_view,
    snapshot,
)


def decide(seen: Snapshot, past: PolicyState, settings: Settings) -> list[Action]:
    """What is done; what is only said has tests of its own."""
    return [action for action in policy.decide(seen, past, settings) if not isinstance(action, Warn)]


def test_nothing_is_done_when_all_is_well() -> None:
    assert decide(snapshot(child()), LEARNED, SETTINGS) == []


def test_the_session_of_a_dead_child_is_reaped_whole() -> None:
    left = (process(30), process(31, name="python"), process(32, name="sh"))
    (action,) = decide(snapshot(orphans=(Orphans(CHILD, left),)), policy_state(), SETTINGS)
    assert isinstance(action, ReapProcesses)
    assert action.processes == left


def test_of_a_dead_childs_processes_in_other_sessions_only_browsers_are_reaped() -> None:
    crashpad = process(30, session=30, name="chrome_crashpad")
    daemon = process(31, session=31, name="my-daemon")
    (action,) = decide(snapshot(orphans=(Orphans(CHILD, (crashpad, daemon)),)), policy_state(), SETTINGS)
    assert isinstance(action, ReapProcesses)
    assert action.processes == (crashpad,)


def test_defunct_orphans_are_left_to_their_parent() -> None:
    assert (
        decide(snapshot(orphans=(Orphans(CHILD, (process(30, state="Z"),)),)), policy_state(), SETTINGS) == []
    )


def test_a_browser_of_a_finished_task_is_reaped() -> None:
    (action,) = decide(snapshot(child(process(30, started=80.0))), LEARNED, SETTINGS)
    assert isinstance(action, ReapProcesses)
    assert (action.cause, [member.pid for member in action.processes]) == ("leftovers", [30])


def test_a_finished_tasks_browser_is_reaped_also_while_the_next_task_has_one_of_its_own() -> None:
    busy = child(process(30, started=80.0), process(40, started=95.0), task_id="b", task_name="b")
    (action,) = decide(snapshot(busy), LEARNED, SETTINGS)
    assert isinstance(action, ReapProcesses)
    assert [member.pid for member in action.processes] == [30]


def test_what_an_old_browser_starts_during_the_next_task_goes_with_it() -> None:
    busy = child(process(30, started=80.0), process(31, started=95.0, parent=30), task_id="b", task_name="b")
    (action,) = decide(snapshot(busy), LEARNED, SETTINGS)
    assert isinstance(action, ReapProcesses)
    assert {member.pid for member in action.processes} == {30, 31}


def test_a_running_tasks_browser_is_left_alone() -> None:
    assert (
        decide(snapshot(child(process(30, started=95.0), task_id="b", task_name="b")), LEARNED, SETTINGS) == []
    )


def test_a_browser_begun_within_a_clock_tick_of_the_end_gets_the_benefit_of_the_doubt() -> None:
    assert decide(snapshot(child(process(30, started=90.0))), LEARNED, SETTINGS) == []


def test_a_browser_older_than_all_tasks_is_the_childs_own() -> None:
    assert decide(snapshot(child(process(30, started=25.0))), LEARNED, SETTINGS) == []


def test_other_programs_of_a_finished_task_are_left_alone() -> None:
    assert decide(snapshot(child(process(30, started=80.0, name="tesseract"))), LEARNED, SETTINGS) == []


def test_a_pool_may_keep_its_browsers() -> None:
    pools = (slow_with(reap_leftover_browsers=False),)
    settings = Settings(app="app", pools=pools, runtime_dir=Path("/run"))
    assert decide(snapshot(child(process(30, started=80.0))), LEARNED, settings) == []


def slow_with(**changes: object) -> Pool:
    return structs.replace(SLOW, **changes)


def test_a_living_child_is_told_to_collect_its_defunct_browsers() -> None:
    (action,) = decide(snapshot(child(process(30, started=80.0, parent=20, state="Z"))), LEARNED, SETTINGS)
    assert isinstance(action, ReapZombies)
    assert action.owner == CHILD


def test_a_child_is_retired_when_the_next_task_would_take_it_past_its_budget() -> None:
    # Budget 800 - (500 - 250) = 550; 250 now and 300 for the next are no more than that, 270 are.
    assert decide(snapshot(child(mib=250), floor_mib=500), LEARNED, SETTINGS) == []
    (action,) = decide(snapshot(child(mib=270), floor_mib=535), LEARNED, SETTINGS)
    assert isinstance(action, RetireChild)
    assert "270 MiB after 3 tasks, a fresh one has 50 MiB; with 300 MiB for the next task" in action.reason
    assert "535 MiB" in action.reason or "budget of 535 MiB" in action.reason


def test_a_child_that_runs_a_task_is_judged_when_it_is_done() -> None:
    busy = child(mib=500, task_id="b", task_name="b")
    assert decide(snapshot(busy, floor_mib=800), LEARNED, SETTINGS) == []


def test_a_child_is_not_retired_where_that_frees_next_to_nothing() -> None:
    assert decide(snapshot(child(mib=60), floor_mib=900), LEARNED, SETTINGS) == []


def test_a_child_that_has_done_nothing_is_not_retired() -> None:
    fresh = child(mib=600, tasks_done=0, first_task_started=None, last_task_ended=None)
    assert decide(snapshot(fresh, floor_mib=800), LEARNED, SETTINGS) == []


def test_a_retirement_is_not_asked_for_again_at_once() -> None:
    grown = snapshot(child(mib=400), floor_mib=700)
    assert decide(grown, replace(LEARNED, retired={CHILD: AT - 1}), SETTINGS) == []
    assert decide(grown, replace(LEARNED, retired={CHILD: AT - 11}), SETTINGS) != []


def test_of_two_children_past_their_budget_the_one_further_past_goes_first() -> None:
    other = Owner("slow", 21, 2100)
    settings = Settings(app="app", pools=(slow_with(concurrency=2),), runtime_dir=Path("/run"))
    both = snapshot(child(mib=300), child(mib=330, owner=other), floor_mib=730)
    (action,) = decide(both, LEARNED, settings)
    assert isinstance(action, RetireChild)
    assert action.owner == other


def test_the_leaking_pool_pays_for_its_leak_not_the_one_beside_it() -> None:
    fast = child(owner=Owner("fast", 40, 4000), mib=90)
    grown = child(mib=300, task_id="t", idle_bytes=300 * MIB)
    past = replace(LEARNED, models={**LEARNED.models, "fast": PoolModel(baseline_bytes=50 * MIB, tails=(0,))})
    # The slow child saves more and is busy: it is waited for.
    assert decide(snapshot(grown, fast, floor_mib=890), past, SETTINGS) == []
    (action,) = decide(snapshot(child(mib=300), fast, floor_mib=890), past, SETTINGS)
    assert isinstance(action, RetireChild)
    assert action.owner == CHILD


def test_a_busy_child_that_holds_files_without_a_name_is_retired_for_them() -> None:
    grown = child(mib=60, file_bytes=240 * MIB, task_id="t", idle_bytes=60 * MIB)
    (action,) = decide(snapshot(grown, floor_mib=890), LEARNED, SETTINGS)
    assert isinstance(action, RetireChild)
    assert action.reason.startswith("300 MiB after 3 tasks, a fresh one has 50 MiB")


def test_where_a_fresh_child_would_be_past_its_budget_too_a_recycle_must_be_worth_it() -> None:
    assert decide(snapshot(child(mib=140), floor_mib=700), LEARNED, SETTINGS) == []
    (action,) = decide(snapshot(child(mib=160), floor_mib=720), LEARNED, SETTINGS)
    assert isinstance(action, RetireChild)


def test_a_worker_that_lets_none_of_its_children_go_is_replaced() -> None:
    seen = snapshot(child(mib=400), floor_mib=700, pools=(slow_view(),))
    (first,) = decide(seen, replace(LEARNED, refused={"slow": 2}), SETTINGS)
    (last,) = decide(seen, replace(LEARNED, refused={"slow": 3}), SETTINGS)
    assert isinstance(first, RetireChild)
    assert isinstance(last, ReplaceWorker)


def test_a_main_process_that_grew_is_replaced_when_memory_is_short_and_left_when_it_is_not() -> None:
    grown = slow_view(main_bytes=400 * MIB, main_start_bytes=60 * MIB)
    (action,) = decide(snapshot(child(), floor_mib=810, pools=(grown,)), policy_state(), SETTINGS)
    assert isinstance(action, ReplaceWorker)
    assert "its main process grew from 60 MiB to 400 MiB" in action.reason
    assert decide(snapshot(child(), floor_mib=790, pools=(grown,)), policy_state(), SETTINGS) == []
    still = slow_view(main_bytes=150 * MIB, main_start_bytes=60 * MIB)
    assert decide(snapshot(child(), floor_mib=810, pools=(still,)), policy_state(), SETTINGS) == []


def replacing(*children: Child, state: PoolState = PoolState.RUNNING) -> Snapshot:
    """A snapshot whose slow worker cannot let single children go."""
    view = PoolView(name="slow", state=state, pid=10, slot="slow", retires=False)
    return replace(snapshot(*children, floor_mib=700), pools=(view,))


def test_where_children_cannot_be_let_go_the_worker_is_replaced() -> None:
    (action,) = decide(replacing(child(mib=400)), LEARNED, SETTINGS)
    assert isinstance(action, ReplaceWorker)
    assert (action.pool, "child 20: 400 MiB after 3 tasks" in action.reason) == ("slow", True)


def test_a_worker_is_not_replaced_while_it_stops_nor_again_within_a_minute() -> None:
    grown = child(mib=400)
    assert decide(replacing(grown, state=PoolState.STOPPING), LEARNED, SETTINGS) == []
    assert decide(replacing(grown), replace(LEARNED, replaced={"slow": AT - 59}), SETTINGS) == []
    assert decide(replacing(grown), replace(LEARNED, replaced={"slow": AT - 61}), SETTINGS) != []


def test_a_main_process_that_runs_the_tasks_itself_is_judged_though_it_tells_no_tasks() -> None:
    settings = Settings(app="app", pools=(slow_with(implementation="threads"),), runtime_dir=Path("/run"))
    threaded = child(mib=750, tasks_done=0, first_task_started=None, last_task_ended=None)
    (action,) = decide(replacing(threaded), LEARNED, settings)
    assert isinstance(action, ReplaceWorker)


def test_above_the_hard_level_the_largest_child_is_preempted_with_all_it_started() -> None:
    large = child(process(30, started=95.0, mib=600), task_id="b", task_name="b")
    small = child(owner=Owner("fast", 40, 4000), mib=50)
    (action,) = decide(snapshot(large, small, floor_mib=960), LEARNED, SETTINGS)
    assert isinstance(action, PreemptChild)
    assert (action.owner, {member.pid for member in action.processes}) == (CHILD, {20, 30})


def test_a_browser_about_to_be_reaped_does_not_cost_its_child_its_place() -> None:
    leftover = process(30, started=80.0, mib=500)
    for floor_mib in (750, 990):
        (action,) = decide(snapshot(child(leftover), floor_mib=floor_mib), LEARNED, SETTINGS)
        assert isinstance(action, ReapProcesses)


def test_after_a_preemption_memory_gets_time_to_come_back() -> None:
    large = snapshot(child(process(30, started=95.0, mib=600), task_id="b"), floor_mib=960)
    assert decide(large, replace(LEARNED, preempted=AT - 0.5), SETTINGS) == []


def test_above_the_hard_level_a_child_that_holds_next_to_nothing_is_not_killed_for_it() -> None:
    assert decide(snapshot(child(mib=60, task_id="b"), floor_mib=990), LEARNED, SETTINGS) == []


def test_above_the_hard_level_with_nothing_of_ours_running_nothing_is_killed() -> None:
    assert decide(snapshot(floor_mib=990), LEARNED, SETTINGS) == []


sizes = st.integers(min_value=0, max_value=1200)


@given(
    children=st.lists(st.tuples(sizes, st.booleans(), st.sampled_from(["fast", "slow"])), max_size=6),
    floor=sizes,
    tail=sizes,
)
def test_a_tick_has_at_most_one_heavy_action_and_none_on_a_pid_that_is_not_ours(
    children: list[tuple[int, bool, str]], floor: int, tail: int
) -> None:
    seen = tuple(
        child(mib=mib, owner=Owner(pool, 100 + index, 1), task_id="t" if busy else None)
        for index, (mib, busy, pool) in enumerate(children)
    )
    memory = policy_state(models={name: PoolModel(50 * MIB, (tail * MIB,)) for name in ("fast", "slow")})
    actions = decide(snapshot(*seen, floor_mib=floor), memory, SETTINGS)
    heavy = [action for action in actions if isinstance(action, RetireChild | ReplaceWorker | PreemptChild)]
    assert len(heavy) <= 1
    owners = {
        action.owner
        for action in actions
        if isinstance(action, ReapProcesses | ReapZombies | RetireChild | PreemptChild)
    }
    assert owners <= {one.owner for one in seen}
    ours = {member.pid for one in seen for member in one.processes}
    assert {
        member.pid
        for action in actions
        if isinstance(action, ReapProcesses | PreemptChild)
        for member in action.processes
    } <= ours


def test_a_child_that_leaves_anyway_is_not_retired_and_takes_no_room_from_its_successor() -> None:
    done = child(mib=110, tasks_done=9)
    fresh = child(mib=50, owner=Owner("slow", 21, 2100), tasks_done=0)
    for view in (slow_view(max_tasks_per_child=9), slow_view(leaving=frozenset({20}))):
        assert decide(snapshot(done, fresh, floor_mib=480, pools=(view,)), LEARNED, SETTINGS) == []
        assert list(find_warnings(snapshot(done, fresh, floor_mib=480, pools=(view,)), LEARNED, SETTINGS)) == []


def test_a_child_that_stands_by_does_not_count_as_one_more_task() -> None:
    busy = child(process(30, started=95.0, mib=250), task_id="t")
    standby = child(mib=50, owner=Owner("slow", 21, 2100), tasks_done=0)
    assert projected_peak_bytes(snapshot(busy, floor_mib=500), LEARNED, SETTINGS) == 540 * MIB
    assert projected_peak_bytes(snapshot(busy, standby, floor_mib=550), LEARNED, SETTINGS) == 590 * MIB
