"""What dead workers held is given back when, and only when, nothing of them can run any more."""

from dataclasses import replace

from recyclery.common.pool_state import PoolState
from recyclery.decide.delivery import reclaim_dead, update_lease_owners
from recyclery.decide.policy_state import LeaseOwner
from recyclery.observe.snapshot import Owner, Snapshot
from support.snapshots import child, policy_state, slow_view, snapshot

OLD = Owner("slow", 20, 2000)
WORD = LeaseOwner("g1", "slow", 10)
HELD = {"g1": replace(WORD, children=frozenset({20}))}
NEXT = LeaseOwner("g2", "slow", 11)
WITH_NEXT = {**HELD, "g2": NEXT}


def seen(pid: int | None, *owners: Owner, state: PoolState = PoolState.RUNNING) -> Snapshot:
    children = [child(owner=owner) for owner in owners]
    return snapshot(*children, pools=(replace(slow_view(), pid=pid, state=state),))


def reclaimed(look: Snapshot, holders: dict[str, LeaseOwner]) -> list[tuple[str, str]]:
    return [(each.generation, each.through) for each in reclaim_dead(look, policy_state(lease_owners=holders))]


def test_a_living_worker_is_followed_with_its_children() -> None:
    assert update_lease_owners({}, seen(10, OLD), [WORD]) == HELD


def test_the_children_of_a_dead_worker_stay_those_it_had() -> None:
    followed = update_lease_owners(HELD, seen(11, Owner("slow", 30, 3000)), [NEXT])
    assert followed == {**HELD, "g2": replace(NEXT, children=frozenset({30}))}


def test_a_worker_that_spoke_and_died_before_it_was_seen_is_known_by_its_word() -> None:
    spoken = replace(WORD, children=frozenset({20}))
    assert update_lease_owners({}, seen(None), [spoken]) == HELD


def test_a_worker_without_a_generation_holds_nothing() -> None:
    assert update_lease_owners({}, seen(10, OLD), [replace(WORD, generation="")]) == {}


def test_a_worker_whose_messages_were_given_back_is_forgotten_when_its_word_is() -> None:
    done = {"g1": replace(HELD["g1"], given_back=True)}
    assert reclaimed(seen(11), {**done, "g2": NEXT}) == []
    assert update_lease_owners(done, seen(11), [WORD]) == done
    assert update_lease_owners(done, seen(11), []) == {}


def test_a_dead_workers_messages_are_given_back_by_one_that_lives() -> None:
    assert reclaimed(seen(11), WITH_NEXT) == [("g1", "slow")]


def test_messages_are_not_given_back_while_a_child_of_the_dead_worker_runs() -> None:
    assert reclaimed(seen(11, OLD), WITH_NEXT) == []


def test_messages_are_not_given_back_while_the_main_process_lives() -> None:
    assert reclaimed(seen(10), HELD) == []


def test_messages_are_not_given_back_before_there_is_a_worker_to_do_it() -> None:
    assert reclaimed(seen(None), HELD) == []
    assert reclaimed(seen(11, state=PoolState.STOPPING), WITH_NEXT) == []
    # One that runs and has not said yet under which generation it holds messages is not up yet.
    assert reclaimed(seen(11), HELD) == []


def test_children_of_two_workers_of_a_pool_are_each_ones_own() -> None:
    young = Owner("slow", 30, 3000)
    former = replace(slow_view(), state=PoolState.DRAINING)
    serving = replace(slow_view(), slot="slow-b", pid=11)
    look = snapshot(child(owner=OLD), child(owner=young, slot="slow-b"), pools=(serving,), others=(former,))
    followed = update_lease_owners({}, look, [WORD, NEXT])
    assert {name: holder.children for name, holder in followed.items()} == {"g1": {20}, "g2": {30}}
    # The former one is dead, and its tasks do not wait for the other's children.
    gone = snapshot(child(owner=young, slot="slow-b"), pools=(serving,))
    assert reclaimed(gone, dict(followed)) == [("g1", "slow-b")]
