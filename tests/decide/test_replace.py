"""A worker's replacement in steps: where a successor starts, when the old one leaves, when it is given up."""

from dataclasses import replace

from msgspec import structs

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import BUILT_IN, Settings
from recyclery.decide.actions import AbortRollout, Action, ReplaceWorker, StopOld
from recyclery.decide.memory_levels import active_children, is_leaving, projected_peak_bytes
from recyclery.decide.policy import decide
from recyclery.decide.policy_state import PolicyState
from recyclery.decide.replace import (
    ROLLOUT_RETRY_SECONDS,
    SUCCESSOR_SECONDS,
    find_shortage,
    finish_rollouts,
    plan_rollout,
)
from recyclery.observe.snapshot import Owner, PoolView, Snapshot
from support.snapshots import AT, LEARNED, MIB, SETTINGS, child, policy_state, slow_view, snapshot

ASKED = replace(LEARNED, asked={"slow": "asked to"})
NEXT = Owner("slow", 21, 2100)


def old(**rest: object) -> PoolView:
    return slow_view(**({"started": AT - 500, "main_bytes": 40 * MIB, "main_start_bytes": 40 * MIB} | rest))


def successor(**rest: object) -> PoolView:
    return slow_view(**({"slot": "slow-b", "pid": 11, "state": PoolState.STARTING, "started": AT - 2} | rest))


def seen(*others: PoolView, floor_mib: int = 200, serving: PoolView | None = None) -> Snapshot:
    return snapshot(child(mib=60), floor_mib=floor_mib, pools=(serving or old(),), others=others)


def decided(look: Snapshot, past: PolicyState = ASKED, settings: Settings = SETTINGS) -> list[Action]:
    return [
        action
        for action in decide(look, past, settings)
        if isinstance(action, ReplaceWorker | StopOld | AbortRollout)
    ]


def test_with_room_for_two_the_successor_starts_in_the_other_slot() -> None:
    assert decided(seen()) == [ReplaceWorker("slow", "asked to", slot="slow", successor="slow-b")]
    back = old(slot="slow-b")
    assert decided(seen(serving=back)) == [ReplaceWorker("slow", "asked to", slot="slow-b", successor="slow")]


def test_without_room_for_two_the_worker_stops_first_and_the_reason_has_the_figures() -> None:
    # 40 MiB for a main process, and a child of 50 with a task of 300; the retire level is at 800.
    (action,) = decided(seen(floor_mib=411))
    assert action == ReplaceWorker(
        "slow",
        "asked to; a second worker may take 390 MiB, which beside the 411 MiB of all else passes 800 MiB, "
        "80 % of the limit",
        slot="slow",
    )
    (action,) = decided(seen(floor_mib=410))
    assert isinstance(action, ReplaceWorker)
    assert action.successor == "slow-b"


def test_the_tasks_that_the_old_worker_has_count_and_not_those_it_could_take() -> None:
    slow = BUILT_IN[1]
    idle = snapshot(child(mib=60), floor_mib=410, pools=(old(),))
    busy = snapshot(child(mib=60, task_id="a"), floor_mib=410, pools=(old(),))
    assert find_shortage(slow, old(), idle, LEARNED, SETTINGS) is None
    assert find_shortage(slow, old(), busy, LEARNED, SETTINGS) is not None


def test_a_worker_of_which_nothing_was_learned_is_taken_to_become_like_the_one_there_is() -> None:
    slow = BUILT_IN[1]
    look = snapshot(child(mib=300), floor_mib=470, pools=(old(),))
    assert "may take 340 MiB" in str(find_shortage(slow, old(), look, policy_state(), SETTINGS))


def test_a_worker_whose_tasks_run_in_its_main_process_is_not_counted_twice() -> None:
    threads = structs.replace(BUILT_IN[1], implementation="threads")
    settings = structs.replace(SETTINGS, pools=(threads,))
    assert find_shortage(threads, old(), seen(floor_mib=450), LEARNED, settings) is None
    assert find_shortage(threads, old(), seen(floor_mib=451), LEARNED, settings) is not None


def test_the_old_worker_leaves_when_its_successor_takes_tasks_and_not_before() -> None:
    assert decided(seen(successor())) == []
    # PID 1 calls it starting for some seconds more.
    leaving = StopOld("slow", "slow-b takes tasks", "slow", "slow-b")
    assert decided(seen(successor(consuming=True))) == [leaving]
    assert decided(seen(successor(consuming=True, state=PoolState.RUNNING)), LEARNED) == [leaving]


def test_a_governor_that_knows_of_nothing_finishes_what_another_began() -> None:
    assert decided(seen(successor(consuming=True)), policy_state()) == [
        StopOld("slow", "slow-b takes tasks", "slow", "slow-b")
    ]


def test_a_successor_that_does_not_come_to_take_tasks_is_given_up() -> None:
    late = successor(started=AT - SUCCESSOR_SECONDS)
    assert decided(seen(late)) == [AbortRollout("slow", "it takes no tasks 120 s after its start", "slow-b")]
    assert decided(seen(successor(started=AT - SUCCESSOR_SECONDS + 1))) == []


def test_a_successor_for_which_there_is_no_memory_after_all_is_given_up() -> None:
    (action,) = finish_rollouts(seen(successor(), floor_mib=950), LEARNED, SETTINGS)
    assert action == AbortRollout("slow", "950 MiB cannot be reclaimed, above 950 MiB", "slow-b")


def test_while_a_former_worker_drains_there_is_no_slot_for_another() -> None:
    former = old(state=PoolState.DRAINING)
    assert decided(seen(former, serving=successor(state=PoolState.RUNNING, consuming=True))) == []


def test_a_worker_that_was_started_with_other_settings_is_replaced_once_it_runs() -> None:
    outdated = old(outdated=True)
    (action,) = decided(seen(serving=outdated), LEARNED)
    assert action == ReplaceWorker(
        "slow", "its settings have changed since its start", slot="slow", successor="slow-b"
    )
    assert decided(seen(serving=replace(outdated, state=PoolState.STARTING)), LEARNED) == []


def test_after_a_successor_that_was_of_no_use_only_a_person_has_the_next_one_tried_soon() -> None:
    outdated = seen(serving=old(outdated=True))
    failed = {"slow": AT - ROLLOUT_RETRY_SECONDS + 1}
    assert decided(outdated, replace(LEARNED, failed_rollouts=failed)) == []
    assert decided(outdated, replace(LEARNED, failed_rollouts={"slow": AT - ROLLOUT_RETRY_SECONDS})) != []
    assert decided(outdated, replace(ASKED, failed_rollouts=failed)) != []


def test_a_worker_that_does_not_answer_is_replaced_when_asked_and_one_that_is_down_is_not() -> None:
    assert decided(seen(serving=old(state=PoolState.NOT_ANSWERING))) != []
    assert decided(seen(serving=old(state=PoolState.BACKOFF, pid=None))) == []


def test_children_of_a_worker_that_drains_count_with_their_tasks_and_take_no_places() -> None:
    busy, idle, fresh = (
        child(mib=60, task_id="a"),
        child(mib=60, owner=Owner("slow", 22, 2200)),
        child(mib=50, owner=NEXT, slot="slow-b"),
    )
    serving = successor(state=PoolState.RUNNING, consuming=True)
    look = snapshot(busy, idle, fresh, floor_mib=400, pools=(serving,), others=(old(state=PoolState.DRAINING),))
    assert (is_leaving(idle, look), is_leaving(busy, look), is_leaving(fresh, look)) == (True, False, False)
    assert active_children(look, "slow") == [fresh]
    # The running task may yet take 290, and the new worker's child 300.
    assert projected_peak_bytes(look, LEARNED, SETTINGS) == (400 + 290 + 300) * MIB


def test_a_pool_that_has_no_free_slot_does_not_keep_another_from_its_turn() -> None:
    fast = PoolView(name="fast", slot="fast", state=PoolState.RUNNING, pid=9)
    former = PoolView(name="fast", slot="fast-b", state=PoolState.DRAINING, pid=8)
    look = snapshot(floor_mib=200, pools=(fast, old()), others=(former,))
    past = replace(LEARNED, asked={"fast": "asked to", "slow": "asked to"})
    assert [action.pool for action in decided(look, past) if isinstance(action, ReplaceWorker)] == ["slow"]


def test_a_replacement_waits_while_the_former_worker_drains_and_where_the_last_successor_was_no_use() -> None:
    wanted = ReplaceWorker("slow", "its main process grew")
    former = successor(state=PoolState.DRAINING)
    assert plan_rollout(wanted, seen(former), LEARNED, SETTINGS) is None
    failed = replace(LEARNED, failed_rollouts={"slow": AT - ROLLOUT_RETRY_SECONDS + 1})
    assert plan_rollout(wanted, seen(), failed, SETTINGS) is None
    assert plan_rollout(wanted, seen(), LEARNED, SETTINGS) is not None


def test_a_worker_with_a_beat_inside_stops_first_also_where_there_is_room_for_two() -> None:
    pools = tuple(structs.replace(pool, celery_options=("-EB",)) for pool in SETTINGS.pools)
    (action,) = decided(seen(), settings=structs.replace(SETTINGS, pools=pools))
    reason = "asked to; beat runs inside it (-B), and two would send each task twice"
    assert action == ReplaceWorker("slow", reason, slot="slow", successor=None)
