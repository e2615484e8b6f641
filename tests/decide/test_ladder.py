"""The rungs: when each acts, and when it does not."""

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from recyclery.config.settings import BUILT_IN, SLOW, Pool, Settings
from recyclery.decide.actions import Collect, Preempt, Reap, Replace, Retire
from recyclery.decide.ladder import Memory, decide
from recyclery.decide.model import PoolModel
from recyclery.observe.snapshot import (
    TICK_SECONDS,
    Child,
    Container,
    Orphans,
    Owner,
    PoolView,
    Process,
    Snapshot,
)

MIB = 1 << 20
LIMIT = 1000 * MIB
SETTINGS = Settings(app="app", pools=BUILT_IN, runtime_dir=Path("/run/recyclery"))
CHILD = Owner("slow", 20, 2000)
LEARNED = Memory(models={"slow": PoolModel(baseline_bytes=50 * MIB, tails=(300 * MIB,) * 20)})
AT = 100.0


def process(
    pid: int,
    *,
    started: float = 50.0,
    mib: int = 0,
    name: str = "chromium",
    parent: int = 1,
    session: int = 20,
    state: str = "S",
) -> Process:
    return Process(pid, round(started / TICK_SECONDS), parent, session, state, name, mib * MIB)


def child(*members: Process, mib: int = 60, owner: Owner = CHILD, **rest: object) -> Child:
    leader = process(owner.pid, name="python", mib=mib, started=20.0)
    values = {"tasks_done": 3, "first_task_started": 30.0, "last_task_ended": 90.0} | rest
    return Child(owner=owner, processes=(leader, *members), **values)  # type: ignore[arg-type]


def snapshot(*children: Child, floor_mib: int = 400, orphans: tuple[Orphans, ...] = ()) -> Snapshot:
    floor = floor_mib * MIB
    container = Container(LIMIT, floor, floor, floor, 0, "a test")
    return Snapshot(at=AT, container=container, pools=(), children=children, orphans=orphans, defunct=0)


def test_nothing_is_done_when_all_is_well() -> None:
    assert decide(snapshot(child()), LEARNED, SETTINGS) == []


def test_the_session_of_a_dead_child_is_reaped_whole() -> None:
    left = (process(30), process(31, name="python"), process(32, name="sh"))
    (action,) = decide(snapshot(orphans=(Orphans(CHILD, left),)), Memory(), SETTINGS)
    assert isinstance(action, Reap)
    assert action.processes == left


def test_of_a_dead_childs_processes_in_other_sessions_only_browsers_are_reaped() -> None:
    crashpad = process(30, session=30, name="chrome_crashpad")
    daemon = process(31, session=31, name="my-daemon")
    (action,) = decide(snapshot(orphans=(Orphans(CHILD, (crashpad, daemon)),)), Memory(), SETTINGS)
    assert isinstance(action, Reap)
    assert action.processes == (crashpad,)


def test_defunct_orphans_are_left_to_their_parent() -> None:
    assert decide(snapshot(orphans=(Orphans(CHILD, (process(30, state="Z"),)),)), Memory(), SETTINGS) == []


def test_a_browser_of_a_finished_task_is_reaped() -> None:
    (action,) = decide(snapshot(child(process(30, started=80.0))), LEARNED, SETTINGS)
    assert isinstance(action, Reap)
    assert (action.kind, [member.pid for member in action.processes]) == ("leftovers", [30])


def test_it_is_reaped_also_while_the_next_task_runs_with_a_browser_of_its_own() -> None:
    busy = child(process(30, started=80.0), process(40, started=95.0), task_id="b", task_name="b")
    (action,) = decide(snapshot(busy), LEARNED, SETTINGS)
    assert isinstance(action, Reap)
    assert [member.pid for member in action.processes] == [30]


def test_what_an_old_browser_starts_during_the_next_task_goes_with_it() -> None:
    busy = child(process(30, started=80.0), process(31, started=95.0, parent=30), task_id="b", task_name="b")
    (action,) = decide(snapshot(busy), LEARNED, SETTINGS)
    assert isinstance(action, Reap)
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
    assert isinstance(action, Collect)
    assert action.owner == CHILD


def test_a_child_is_retired_when_the_next_task_would_take_it_past_its_budget() -> None:
    # Budget 800 - (500 - 250) = 550; 250 now and 300 for the next are no more than that, 270 are.
    assert decide(snapshot(child(mib=250), floor_mib=500), LEARNED, SETTINGS) == []
    (action,) = decide(snapshot(child(mib=270), floor_mib=535), LEARNED, SETTINGS)
    assert isinstance(action, Retire)
    assert "270 MiB now + 300 MiB" in action.reason
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
    assert isinstance(action, Retire)
    assert action.owner == other


def replacing(*children: Child, state: str = "running") -> Snapshot:
    """A snapshot whose slow worker cannot let single children go."""
    view = PoolView(name="slow", state=state, pid=10, retires=False)
    return replace(snapshot(*children, floor_mib=700), pools=(view,))


def test_where_children_cannot_be_let_go_the_worker_is_replaced() -> None:
    (action,) = decide(replacing(child(mib=400)), LEARNED, SETTINGS)
    assert isinstance(action, Replace)
    assert (action.pool, "child 20: 400 MiB now" in action.reason) == ("slow", True)


def test_a_worker_is_not_replaced_while_it_stops_nor_again_within_a_minute() -> None:
    grown = child(mib=400)
    assert decide(replacing(grown, state="stopping"), LEARNED, SETTINGS) == []
    assert decide(replacing(grown), replace(LEARNED, replaced={"slow": AT - 59}), SETTINGS) == []
    assert decide(replacing(grown), replace(LEARNED, replaced={"slow": AT - 61}), SETTINGS) != []


def test_a_main_process_that_runs_the_tasks_itself_is_judged_though_it_tells_no_tasks() -> None:
    settings = Settings(app="app", pools=(slow_with(implementation="threads"),), runtime_dir=Path("/run"))
    threaded = child(mib=750, tasks_done=0, first_task_started=None, last_task_ended=None)
    (action,) = decide(replacing(threaded), LEARNED, settings)
    assert isinstance(action, Replace)


def test_above_the_hard_level_the_largest_child_is_preempted_with_all_it_started() -> None:
    large = child(process(30, started=95.0, mib=600), task_id="b", task_name="b")
    small = child(owner=Owner("fast", 40, 4000), mib=50)
    (action,) = decide(snapshot(large, small, floor_mib=960), LEARNED, SETTINGS)
    assert isinstance(action, Preempt)
    assert (action.owner, {member.pid for member in action.processes}) == (CHILD, {20, 30})


def test_a_browser_about_to_be_reaped_does_not_cost_its_child_its_place() -> None:
    leftover = process(30, started=80.0, mib=500)
    for floor_mib in (750, 990):
        (action,) = decide(snapshot(child(leftover), floor_mib=floor_mib), LEARNED, SETTINGS)
        assert isinstance(action, Reap)


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
def test_there_is_never_more_than_one_heavy_action_nor_one_on_a_pid_that_is_not_ours(
    children: list[tuple[int, bool, str]], floor: int, tail: int
) -> None:
    seen = tuple(
        child(mib=mib, owner=Owner(pool, 100 + index, 1), task_id="t" if busy else None)
        for index, (mib, busy, pool) in enumerate(children)
    )
    memory = Memory(models={name: PoolModel(50 * MIB, (tail * MIB,)) for name in ("fast", "slow")})
    actions = decide(snapshot(*seen, floor_mib=floor), memory, SETTINGS)
    heavy = [action for action in actions if isinstance(action, Retire | Replace | Preempt)]
    assert len(heavy) <= 1
    owners = {action.owner for action in actions if not isinstance(action, Replace)}
    assert owners <= {one.owner for one in seen}
    ours = {member.pid for one in seen for member in one.processes}
    assert {
        member.pid for action in actions if isinstance(action, Reap | Preempt) for member in action.processes
    } <= ours
