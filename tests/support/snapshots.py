"""Snapshots made by hand: one slow child in a container of 1000 MiB, unless said otherwise."""

from pathlib import Path
from typing import Any

from msgspec import structs

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import BUILT_IN, SLOW, Settings
from recyclery.decide.memory_model import RISK, PoolModel
from recyclery.decide.policy_state import PolicyState
from recyclery.observe.queue_depths import Broker
from recyclery.observe.snapshot import (
    CLOCK_TICK_SECONDS,
    Child,
    ContainerMemory,
    Orphans,
    Owner,
    PoolView,
    Process,
    Snapshot,
    Vitals,
)
from recyclery.state.board import Board
from recyclery.state.ledger import Ledger
from recyclery.state.model_store import ModelStore
from recyclery.state.task_stats import TaskTotals

MIB = 1 << 20
LIMIT = 1000 * MIB
SETTINGS = Settings(app="app", pools=BUILT_IN, runtime_dir=Path("/run/recyclery"))
CHILD = Owner("slow", 20, 2000)
LEARNED = PolicyState(RISK, models={"slow": PoolModel(baseline_bytes=50 * MIB, tails=(300 * MIB,) * 20)})
AT = 100.0
# What a worker says of itself once it is up.
ANSWERED = Vitals(pid=10, answered=1.0)


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
    return Process(pid, round(started / CLOCK_TICK_SECONDS), parent, session, state, name, mib * MIB)


def child(*members: Process, mib: int = 60, owner: Owner = CHILD, **rest: object) -> Child:
    leader = process(owner.pid, name="python", mib=mib, started=20.0)
    values = {
        "tasks_done": 3,
        "first_task_started": 30.0,
        "last_task_ended": 90.0,
        "slot": owner.pool,
    } | rest
    return Child(owner=owner, processes=(leader, *members), **values)  # type: ignore[arg-type]


def slow_view(**rest: object) -> PoolView:
    """The slow worker as it runs by default, holding nothing back."""
    values = {
        "state": PoolState.RUNNING,
        "pid": 10,
        "concurrency": 1,
        "max_tasks_per_child": 10,
        "holding": False,
    }
    return PoolView(name="slow", **({"slot": "slow"} | values | rest))  # type: ignore[arg-type]


def snapshot(
    *children: Child,
    floor_mib: int = 400,
    orphans: tuple[Orphans, ...] = (),
    pools: tuple[PoolView, ...] = (),
    **rest: object,
) -> Snapshot:
    floor = floor_mib * MIB
    container = ContainerMemory(LIMIT, floor, floor, floor, 0, "a test")
    return Snapshot(
        at=AT,
        container=container,
        pools=pools,
        children=children,
        orphans=orphans,
        defunct=0,
        **rest,  # type: ignore[arg-type]
    )


def policy_state(**known: Any) -> PolicyState:
    """What earlier ticks left: nothing unless said otherwise."""
    return PolicyState(**{"risk": RISK} | known)


def board(settings: Settings = SETTINGS) -> Board:
    """What a governor knows at its start."""
    models = ModelStore(Path("/no/such/folder/models.json"))
    return Board(settings, Broker(""), Ledger(settings), models, TaskTotals(since=0.0))


def settings_with(**changes: object) -> Settings:
    """The built-in settings with the slow pool changed."""
    slow = structs.replace(SLOW, **changes)
    return structs.replace(SETTINGS, pools=(BUILT_IN[0], slow))
