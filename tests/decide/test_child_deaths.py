"""Children that died amid a task: whose history is to hear of it, and by whom."""

from dataclasses import replace

import pytest

from recyclery.common.pool_state import PoolState
from recyclery.decide.actions import ReportDeath
from recyclery.decide.delivery import OUT_OF_MEMORY, PREEMPTED, find_child_deaths, report_deaths
from recyclery.observe.snapshot import Owner, PoolView, Snapshot
from recyclery_worker.link import DeathReport
from support.snapshots import ANSWERED, CHILD, MIB, child, process, slow_view, snapshot

BEFORE = snapshot(child(process(30, mib=500), mib=100, task_id="id"))
FELL = DeathReport(pid=CHILD.pid, task_id="id", tree_bytes=600 * MIB)
UP = {"main": process(10), "vitals": ANSWERED}
FAST = replace(slow_view(**UP), name="fast", slot="fast")


def with_kills(look: Snapshot, kills: int) -> Snapshot:
    return replace(look, container=replace(look.container, oom_kills=kills))


def test_a_child_that_is_gone_amid_a_task_is_told_with_what_it_held() -> None:
    assert find_child_deaths(BEFORE, snapshot(), set()) == {CHILD: FELL}


@pytest.mark.parametrize(("kills", "preempted", "how"), [(1, set(), OUT_OF_MEMORY), (1, {CHILD}, PREEMPTED)])
def test_what_killed_a_child_is_told_where_that_is_known(kills: int, preempted: set[Owner], how: str) -> None:
    (fallen,) = find_child_deaths(BEFORE, with_kills(snapshot(), kills), preempted).values()
    assert fallen.how == how


def test_a_child_that_lives_or_had_no_task_is_not_told() -> None:
    assert find_child_deaths(BEFORE, BEFORE, set()) == {}
    assert find_child_deaths(snapshot(child()), snapshot(), set()) == {}


@pytest.mark.parametrize(
    ("views", "through"),
    [
        ((FAST, slow_view(**UP)), "slow"),
        ((FAST, slow_view(**UP, state=PoolState.STOPPING)), "fast"),
        ((slow_view(**UP, state=PoolState.STOPPING),), None),
        # Its process is gone, dead, or has not answered yet.
        ((FAST, slow_view(vitals=ANSWERED)), "fast"),
        ((slow_view(main=process(10, state="Z"), vitals=ANSWERED),), None),
        ((slow_view(main=process(10)),), None),
    ],
)
def test_a_childs_own_worker_is_told_of_its_death_else_one_that_listens(
    views: tuple[PoolView, ...], through: str | None
) -> None:
    told = list(report_deaths(snapshot(pools=views), {CHILD: FELL}))
    assert told == ([ReportDeath(through=through, death=FELL)] if through else [])
