"""What operators may ask of the governor over the control socket, and how each is answered."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from recyclery.common.pool_state import PoolState
from recyclery.config.fields import BadConfiguration
from recyclery.config.live import change_settings
from recyclery.config.settings import Settings
from recyclery.config.stored import write_settings
from recyclery.control.server import Command, CommandHandler, ErrorResult, ReapResult, SetResult
from recyclery.control.status_schema import Status
from recyclery.decide.actions import Action, Outcome
from recyclery.decide.browsers import count_kinds
from recyclery.decide.budget import find_view, format_count
from recyclery.decide.handoff import find_successor
from recyclery.decide.policy_state import PolicyState
from recyclery.decide.reap import find_reaps, kill_foreign
from recyclery.http.status import leave_unread, read_status
from recyclery.observe.snapshot import PoolView, Snapshot
from recyclery.observe.workers import WorkerUnavailable, ask_worker
from recyclery.state.board import Board
from recyclery_worker import link

log = logging.getLogger("recyclery")


class RecycleStatus(msgspec.Struct):
    """How a pool's worker is, and what is waited for; `going_on` while it is to be replaced.

    `failure` says why the last replacement came to nothing.
    """

    slot: str
    pid: int | None
    state: str
    going_on: bool
    waits_for: str
    failure: str = ""


class TraceStarted(msgspec.Struct):
    """The child that was told to trace, and what it is at: it begins when that is done."""

    pid: int
    task: str


@dataclass(frozen=True)
class Commands:
    """The commands by their names, over what is known and the few things that the loop does for them."""

    board: Board
    observe_now: Callable[[], Awaitable[Snapshot]]
    act_now: Callable[[Callable[[Snapshot], Iterable[Action]]], Awaitable[tuple[Snapshot, list[Outcome]]]]
    follow: Callable[[Settings], None]
    wake: Callable[[], None]

    def handlers(self) -> Mapping[str, CommandHandler]:
        """Return the answers by command."""
        names = ("trace", "status", "glance", "set", "reap", "recycle", "recycling")
        return {name: getattr(self, name) for name in names}

    async def status(self, _: Command) -> Status:
        """Answer with the whole status."""
        return await read_status(self.board)

    async def glance(self, _: Command) -> Status:
        """Answer with what of the status is cheap enough for every second."""
        return await read_status(self.board, leave_unread)

    async def set(self, command: Command) -> SetResult | ErrorResult:
        """Change settings of the running governor, and of one that comes after it."""
        try:
            changed = change_settings(self.board.settings, command.table, command.values)
        except BadConfiguration as error:
            return ErrorResult(error=str(error))
        what = ", ".join(f"{key} = {value}" for key, value in command.values.items())
        try:
            # PID 1 writes it anew at every start.
            write_settings(changed)
        except OSError as error:
            return ErrorResult(error=f"{changed.runtime_dir}: {error.strerror}")
        self.follow(changed)
        log.info("set %s: %s", command.table, what)
        return SetResult(done=f"{command.table}: {what}, until the supervisor's next start")

    async def reap(self, command: Command) -> ReapResult:
        """Kill now what a tick would; browsers that no pool started only where that is asked for."""
        board = self.board

        def choose(snapshot: Snapshot) -> Iterable[Action]:
            evictions = kill_foreign(snapshot) if command.strangers else ()
            return (*find_reaps(snapshot, board.ledger.state, board.settings), *evictions)

        snapshot, outcomes = await self.act_now(choose)
        census = count_kinds(snapshot, board.ledger.state.silences, board.settings.browsers)
        return ReapResult(
            killed=[outcome.line for outcome in outcomes],
            in_use=census.in_use,
            strangers=0 if command.strangers else census.strangers,
        )

    async def recycle(self, command: Command) -> RecycleStatus | ErrorResult:
        """Have a pool's worker replaced as soon as it can be; tell of the one that is to go."""
        pool, snapshot, ledger = command.table, await self.observe_now(), self.board.ledger
        refusal = replacement_refusal(pool, snapshot, ledger.state)
        if refusal is not None:
            return ErrorResult(error=refusal)
        ledger.ask_replacement(pool)
        self.wake()
        return recycle_status(pool, snapshot, ledger.state) or ErrorResult(error=f"{pool} is gone")

    async def recycling(self, command: Command) -> RecycleStatus | ErrorResult:
        """Tell how far a pool's replacement is."""
        pool, snapshot = command.table, self.board.snapshot
        found = recycle_status(pool, snapshot, self.board.ledger.state) if snapshot is not None else None
        return found or ErrorResult(error=f"{pool!r} is not known yet")

    async def trace(self, command: Command) -> TraceStarted | ErrorResult:
        """Have a child of a pool trace the allocations of a task; tell which one."""
        pool, order, snapshot = command.table, command.values, await self.observe_now()
        answer = await ask_to_trace(self.board.settings.runtime_dir, pool, order, snapshot)
        if isinstance(answer, TraceStarted):
            what = f"trace {order['task']} in {pool}/{answer.pid}"
            line = f"{what}: asked for; the child leaves when that is over"
            log.info("%s", line)
            self.board.events.add(snapshot.at, line)
        return answer


def replacement_refusal(pool: str, snapshot: Snapshot, state: PolicyState) -> str | None:
    """Say why a pool's worker cannot be replaced now; None where it can be."""
    view = find_view(snapshot, pool)
    if view is None:
        known = ", ".join(view.name for view in snapshot.pools)
        return f"{pool!r} is no pool: there are {known}"
    if state.is_being_replaced(pool) or find_successor(view, snapshot) is not None:
        return f"{pool} is being replaced already: {tell_what_is_waited_for(view, snapshot)}"
    former = next((other for other in snapshot.others if other.name == pool), None)
    if former is not None:
        return f"{pool} was replaced just now, and its former worker still {tell_drain(former, snapshot)}"
    if view.state is PoolState.DRAINING:
        return f"{pool} is being replaced already: it {tell_drain(view, snapshot)}"
    if not view.is_in_service or view.state is PoolState.STARTING:
        return f"{pool} is {view.state}: there is no worker that takes tasks to be replaced"
    return None


def recycle_status(pool: str, snapshot: Snapshot, state: PolicyState) -> RecycleStatus | None:
    """Return how far a pool's replacement is; None where there is no such pool."""
    view = find_view(snapshot, pool)
    if view is None:
        return None
    going_on = (
        state.is_being_replaced(pool)
        or find_successor(view, snapshot) is not None
        or view.state in {PoolState.DRAINING, PoolState.STARTING, PoolState.STOPPED}
    )
    return RecycleStatus(
        slot=view.slot,
        pid=view.pid,
        state=view.state,
        going_on=going_on,
        waits_for=tell_what_is_waited_for(view, snapshot) if going_on else tell_rest(view, snapshot),
        failure=state.failures.get(pool, ""),
    )


def tell_what_is_waited_for(view: PoolView, snapshot: Snapshot) -> str:
    """Say what has to come before a pool has a new worker."""
    successor = find_successor(view, snapshot)
    if successor is not None:
        return f"{successor.slot} (pid {successor.pid}) starts, and {view.slot} takes tasks until that does"
    if view.state is PoolState.DRAINING:
        return f"{view.slot} {tell_drain(view, snapshot)}; then it starts anew"
    if view.state in {PoolState.STARTING, PoolState.STOPPED}:
        return f"{view.slot} starts"
    return "for its turn"


def tell_rest(view: PoolView, snapshot: Snapshot) -> str:
    """Say who takes tasks now, and what is left to do for the one before."""
    now = f"{view.node or view.slot} (pid {view.pid}) takes tasks"
    former = next((other for other in snapshot.others if other.name == view.name), None)
    return now if former is None else f"{now}; {former.slot} {tell_drain(former, snapshot)}"


def tell_drain(view: PoolView, snapshot: Snapshot) -> str:
    """Say what a worker that drains still has to do."""
    tasks = Counter(
        child.task_name or "?"
        for child in snapshot.children
        if (child.owner.pool, child.slot) == (view.name, view.slot) and child.task_id is not None
    )
    if not tasks:
        return "drains, and has no task any more"
    return f"drains {format_count(tasks.total(), 'task')}: {', '.join(sorted(tasks))}"


async def ask_to_trace(
    runtime_dir: Path, pool: str, order: Mapping[str, str], snapshot: Snapshot
) -> TraceStarted | ErrorResult:
    """Pass an order on to the pool's worker; return which child has it, or why none."""
    view = find_view(snapshot, pool)
    if view is None:
        return ErrorResult(error=f"{pool!r} is no pool: there are {', '.join(v.name for v in snapshot.pools)}")
    if not view.is_in_service:
        return ErrorResult(error=f"{pool} is {view.state}: there is no child that could trace")
    try:
        request = msgspec.convert(order, link.Trace, strict=False)
        reply = await ask_worker(runtime_dir, view.slot, request)
    except msgspec.ValidationError as error:
        return ErrorResult(error=f"no order to trace: {error}")
    except WorkerUnavailable as silence:
        return ErrorResult(error=f"its worker does not answer: {silence}")
    match reply:
        case link.Canary(pid=pid):
            at = next((child.task_name for child in snapshot.children if child.owner.pid == pid), None)
            return TraceStarted(pid=pid, task=at or "")
        case link.Refused(reason=reason):
            return ErrorResult(error=f"{pool} cannot trace: {reason}")
        case _:
            return ErrorResult(error=f"{pool} does not know how to trace: its worker is of another version")
