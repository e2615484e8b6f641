"""Live concurrency: when there is one task more at a time, when one less, and when neither."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from recyclery.decide.concurrency import scale_pools, update_workload
from recyclery.decide.memory_levels import remaining_growth_bytes
from recyclery.decide.policy_state import PolicyState
from recyclery.observe.snapshot import Owner, Snapshot
from support.snapshots import AT, LEARNED, MIB, child, policy_state, settings_with, slow_view, snapshot

RANGE = settings_with(concurrency=1, concurrency_most=3)
WAITED = replace(LEARNED, busy_since={"slow": AT - 5})


def seen(
    concurrency: int = 1,
    *,
    floor_mib: int = 300,
    busy: bool = True,
    cpu_share: float = 0.0,
    depth: int | None = None,
) -> Snapshot:
    children = [
        child(mib=250 if busy else 50, owner=Owner("slow", 20 + n, 2000), task_id="t" if busy else None)
        for n in range(concurrency)
    ]
    view = slow_view(concurrency=concurrency, queue_depth=(7 if busy else 0) if depth is None else depth)
    return snapshot(*children, floor_mib=floor_mib, pools=(view,), cpu_share=cpu_share)


def scaled(look: Snapshot, past: PolicyState = WAITED) -> list[int]:
    return [scale.concurrency for scale in scale_pools(look, past, RANGE)]


def test_with_tasks_waiting_and_memory_for_one_more_a_pool_has_one_child_more() -> None:
    assert scaled(seen()) == [2]


@pytest.mark.parametrize(
    ("look", "past"),
    [
        (seen(3, floor_mib=300), WAITED),
        (seen(floor_mib=500), WAITED),
        (seen(), replace(WAITED, busy_since={"slow": AT - 1})),
        (seen(), replace(WAITED, busy_since={})),
        (seen(), replace(WAITED, scaled={"slow": AT - 5})),
        (seen(), replace(WAITED, models={})),
        (seen(cpu_share=0.95), WAITED),
    ],
    ids=[
        "at the most",
        "no memory",
        "not for long",
        "nothing waits",
        "just changed",
        "nothing known",
        "no CPU",
    ],
)
def test_a_pool_has_not_one_child_more_without_room_need_or_knowledge(
    look: Snapshot, past: PolicyState
) -> None:
    assert scaled(look, past) == []


def test_a_pool_has_one_child_less_when_all_at_their_peak_would_not_fit() -> None:
    assert scaled(seen(2, floor_mib=900)) == [1]


def test_a_pool_has_one_child_less_when_a_child_has_had_no_work_for_long() -> None:
    idle = replace(LEARNED, idle_since={"slow": AT - 31})
    assert scaled(seen(2, busy=False), idle) == [1]
    assert scaled(seen(2, busy=False), replace(LEARNED, idle_since={"slow": AT - 29})) == []


def workload(state: PolicyState, look: Snapshot) -> tuple[Mapping[str, float], Mapping[str, float]]:
    after = update_workload(state, look, RANGE)
    return after.busy_since, after.idle_since


def test_a_pool_all_at_work_with_nothing_waiting_is_neither_busy_nor_idle() -> None:
    seen_with_empty_queue = seen(1, depth=0)
    assert workload(policy_state(busy_since={"slow": 7.0}), seen_with_empty_queue) == ({}, {})


def test_a_pool_with_an_idle_child_and_tasks_waiting_is_neither_busy_nor_idle() -> None:
    assert workload(policy_state(idle_since={"slow": 7.0}), seen(2, busy=False, depth=4)) == ({}, {})


def test_after_a_change_of_concurrency_idleness_is_waited_for_again() -> None:
    idle = replace(LEARNED, idle_since={"slow": AT - 31}, scaled={"slow": AT - 20})
    assert scaled(seen(2, busy=False), idle) == []


def test_the_least_concurrency_is_kept() -> None:
    assert scaled(seen(1, floor_mib=940)) == []


def test_a_concurrency_outside_its_range_is_brought_into_it() -> None:
    assert scaled(seen(5)) == [3]


def test_a_pool_with_one_number_is_brought_back_to_it_and_else_left() -> None:
    (back,) = scale_pools(seen(2), WAITED, settings_with(concurrency=1))
    assert back.concurrency == 1
    assert list(scale_pools(seen(1), WAITED, settings_with(concurrency=1))) == []


def test_a_constant_look_changes_the_number_in_one_direction_only() -> None:
    numbers, current = [], 1
    for _ in range(20):
        look = seen(current, floor_mib=200 + 100 * current)
        changes = scaled(look)
        current = changes[0] if changes else current
        numbers.append(current)
    assert numbers == sorted(numbers)


def test_work_is_noted_from_the_moment_it_waits_and_idleness_from_the_moment_it_begins() -> None:
    busy, idle = workload(policy_state(), seen(2))
    assert (busy, idle) == ({"slow": AT}, {})
    busy, idle = workload(policy_state(idle_since={"slow": 7.0}), seen(2, busy=False))
    assert (busy, idle) == ({}, {"slow": 7.0})


def test_what_a_busy_child_may_yet_take_counts_and_what_it_has_does_not_count_twice() -> None:
    past = LEARNED
    tail = past.headroom_bytes("slow")
    assert remaining_growth_bytes(child(mib=250, task_id="t"), past) == tail + 50 * MIB - 250 * MIB
    assert remaining_growth_bytes(child(mib=50), past) == tail
