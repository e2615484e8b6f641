"""What dead workers held is given back when, and only when, nothing of them can run any more."""

from dataclasses import replace

from recyclery.decide.holders import follow_holders, reclaim_dead
from recyclery.decide.past import Holder, Past
from recyclery.observe.snapshot import Owner, Snapshot
from support.snapshots import child, slow_view, snapshot

OLD = Owner("slow", 20, 2000)
HELD = {"g1": Holder("g1", "slow", 10, frozenset({OLD}))}
WITH_NEXT = {**HELD, "g2": Holder("g2", "slow", 11)}


def seen(pid: int | None, *owners: Owner, state: str = "running") -> Snapshot:
    children = [child(owner=owner) for owner in owners]
    return snapshot(*children, pools=(replace(slow_view(), pid=pid, state=state),))


def reclaimed(look: Snapshot, holders: dict[str, Holder]) -> list[tuple[str, str]]:
    return [(each.generation, each.through) for each in reclaim_dead(look, Past(holders=holders))]


def test_a_living_worker_is_followed_with_its_children() -> None:
    followed = follow_holders({}, seen(10, OLD), {("slow", 10): "g1"})
    assert followed == HELD


def test_the_children_of_a_dead_worker_stay_those_it_had() -> None:
    next_one = Owner("slow", 30, 3000)
    followed = follow_holders(HELD, seen(11, next_one), {("slow", 11): "g2"})
    assert followed == {**HELD, "g2": Holder("g2", "slow", 11, frozenset({next_one}))}


def test_a_worker_without_a_generation_holds_nothing() -> None:
    assert follow_holders({}, seen(10, OLD), {("slow", 10): ""}) == {}
    assert follow_holders({}, seen(None), {}) == {}


def test_a_dead_workers_messages_are_given_back_by_one_that_lives() -> None:
    assert reclaimed(seen(11), WITH_NEXT) == [("g1", "slow")]


def test_not_while_a_child_of_it_still_runs() -> None:
    assert reclaimed(seen(11, OLD), WITH_NEXT) == []


def test_not_while_its_main_process_lives() -> None:
    assert reclaimed(seen(10), HELD) == []


def test_not_before_there_is_a_worker_to_do_it() -> None:
    assert reclaimed(seen(None), HELD) == []
    assert reclaimed(seen(11, state="stopping"), WITH_NEXT) == []
    # One that runs and has not said yet under which generation it holds messages is not up yet.
    assert reclaimed(seen(11), HELD) == []
