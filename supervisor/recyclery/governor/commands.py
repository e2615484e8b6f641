"""The commands of the control socket and their answers."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from recyclery.common.pool_state import PoolState
from recyclery.config.fields import BadConfiguration
from recyclery.config.settings import change_settings, write_settings
from recyclery.control.server import Command, CommandHandler, ErrorResult, ReapResult, SetResult
from recyclery.control.status_schema import Status
from recyclery.decide.actions import Action
from recyclery.decide.browsers import count_by_kind
from recyclery.decide.memory_levels import find_active_worker, format_count
from recyclery.decide.policy_state import PolicyState
from recyclery.decide.reap import find_reaps, kill_foreign
from recyclery.decide.replace import find_successor
from recyclery.governor.loop import Governor
from recyclery.http.status import leave_unread, read_status
from recyclery.observe.snapshot import PoolView, Snapshot
from recyclery.observe.workers import WorkerUnavailable, ask_worker
from recyclery_worker import link

log = logging.getLogger("recyclery")


class RecycleStatus(msgspec.Struct):
    """A pool's worker, what its replacement waits for while `going_on`, and why the last one failed."""

    slot: str
    pid: int | None
    state: str
    going_on: bool
    waits_for: str
    failure: str = ""


class TraceStarted(msgspec.Struct):
    """The child that traces after its present task."""

    pid: int
    task: str


@dataclass(frozen=True)
class CommandHandlers:
    """One method per command."""

    governor: Governor

    def handlers(self) -> Mapping[str, CommandHandler]:
        """Return the handlers by command."""
        names = ("trace", "status", "glance", "set", "reap", "recycle", "recycling")
        return {name: getattr(self, name) for name in names}

    async def status(self, _: Command) -> Status:
        """Return the whole status."""
        return await read_status(self.governor.board)

    async def glance(self, _: Command) -> Status:
        """Return the status without PSS, cheap enough for every second."""
        return await read_status(self.governor.board, leave_unread)

    async def set(self, command: Command) -> SetResult | ErrorResult:
        """Change settings of this governor and its restarts."""
        try:
            changed = change_settings(self.governor.board.settings, command.table, command.values)
        except BadConfiguration as error:
            return ErrorResult(error=str(error))
        what = ", ".join(f"{key} = {value}" for key, value in command.values.items())
        try:
            write_settings(changed)
        except OSError as error:
            return ErrorResult(error=f"{changed.runtime_dir}: {error.strerror}")
        self.governor.apply_settings(changed)
        log.info("set %s: %s", command.table, what)
        return SetResult(done=f"{command.table}: {what}, until the supervisor's next start")

    async def reap(self, command: Command) -> ReapResult:
        """Kill what the next tick would; foreign browsers only where that is asked for."""
        board = self.governor.board

        def choose(snapshot: Snapshot) -> Iterable[Action]:
            evictions = kill_foreign(snapshot) if command.strangers else ()
            return (*find_reaps(snapshot, board.ledger.state, board.settings), *evictions)

        snapshot, outcomes = await self.governor.act_now(choose)
        census = count_by_kind(snapshot, board.ledger.state.stalls, board.settings.browsers)
        killed = [outcome.line for outcome in outcomes]
        return ReapResult(killed, census.in_use, 0 if command.strangers else census.strangers)

    async def recycle(self, command: Command) -> RecycleStatus | ErrorResult:
        """Request the replacement of a pool's worker; return the old one."""
        pool, snapshot, ledger = command.table, await self.governor.observe_now(), self.governor.board.ledger
        if (refusal := replacement_refusal(pool, snapshot, ledger.state)) is not None:
            return ErrorResult(error=refusal)
        ledger.ask_replacement(pool)
        self.governor.woken.set()
        return recycle_status(pool, snapshot, ledger.state) or ErrorResult(error=f"{pool} is gone")

    async def recycling(self, command: Command) -> RecycleStatus | ErrorResult:
        """Return the progress of a pool's replacement."""
        pool, board = command.table, self.governor.board
        found = recycle_status(pool, board.snapshot, board.ledger.state) if board.snapshot is not None else None
        return found or ErrorResult(error=f"{pool!r} is not known yet")

    async def trace(self, command: Command) -> TraceStarted | ErrorResult:
        """Have a child of a pool trace the allocations of a task; return which one."""
        pool, order, snapshot = command.table, command.values, await self.governor.observe_now()
        view, board = find_active_worker(snapshot, pool), self.governor.board
        if view is None:
            return ErrorResult(error=refuse_unknown(pool, snapshot))
        if not view.is_in_service:
            return ErrorResult(error=f"{pool} is {view.state}: there is no child that could trace")
        try:
            request = msgspec.convert(order, link.TraceRequest, strict=False)
            reply = await ask_worker(board.settings.runtime_dir, view.slot, request)
        except msgspec.ValidationError as error:
            return ErrorResult(error=f"no order to trace: {error}")
        except WorkerUnavailable as error:
            return ErrorResult(error=f"its worker does not answer: {error}")
        if isinstance(reply, link.Refused):
            return ErrorResult(error=f"{pool} cannot trace: {reply.reason}")
        if not isinstance(reply, link.TracingChild):
            return ErrorResult(error=f"{pool} does not know how to trace: its worker is of another version")
        line = f"trace {order['task']} in {pool}/{reply.pid}: asked for; the child leaves when that is over"
        log.info("%s", line)
        board.events.add(snapshot.at, line)
        task = next((child.task_name for child in snapshot.children if child.owner.pid == reply.pid), None)
        return TraceStarted(pid=reply.pid, task=task or "")


def refuse_unknown(pool: str, snapshot: Snapshot) -> str:
    """Return the answer to a command that names no pool."""
    return f"{pool!r} is no pool: there are {', '.join(view.name for view in snapshot.pools)}"


def replacement_refusal(pool: str, snapshot: Snapshot, state: PolicyState) -> str | None:
    """Return why a pool's worker cannot be replaced now; None where it can be."""
    view = find_active_worker(snapshot, pool)
    if view is None:
        return refuse_unknown(pool, snapshot)
    if state.is_being_replaced(pool) or find_successor(view, snapshot) is not None:
        return f"{pool} is being replaced already: {describe_wait(view, snapshot)}"
    former = next((other for other in snapshot.others if other.name == pool), None)
    if former is not None:
        return f"{pool} was replaced just now, and its former worker still {describe_drain(former, snapshot)}"
    if view.state is PoolState.DRAINING:
        return f"{pool} is being replaced already: it {describe_drain(view, snapshot)}"
    if not view.is_in_service or view.state is PoolState.STARTING:
        return f"{pool} is {view.state}: there is no worker that takes tasks to be replaced"
    return None


def recycle_status(pool: str, snapshot: Snapshot, state: PolicyState) -> RecycleStatus | None:
    """Return the progress of a pool's replacement; None where there is no such pool."""
    view = find_active_worker(snapshot, pool)
    if view is None:
        return None
    going_on = (
        state.is_being_replaced(pool)
        or find_successor(view, snapshot) is not None
        or view.state in {PoolState.DRAINING, PoolState.STARTING, PoolState.STOPPED}
    )
    waits_for = describe_wait(view, snapshot) if going_on else describe_active(view, snapshot)
    failure = state.failures.get(pool, "")
    return RecycleStatus(view.slot, view.pid, view.state, going_on, waits_for, failure)


def describe_wait(view: PoolView, snapshot: Snapshot) -> str:
    """Return what a pool's replacement waits for, in words."""
    successor = find_successor(view, snapshot)
    if successor is not None:
        return f"{successor.slot} (pid {successor.pid}) starts, and {view.slot} takes tasks until that does"
    if view.state is PoolState.DRAINING:
        return f"{view.slot} {describe_drain(view, snapshot)}; then it starts anew"
    if view.state in {PoolState.STARTING, PoolState.STOPPED}:
        return f"{view.slot} starts"
    return "for its turn"


def describe_active(view: PoolView, snapshot: Snapshot) -> str:
    """Return which worker consumes, and what its former one still has to do, in words."""
    now = f"{view.node or view.slot} (pid {view.pid}) takes tasks"
    former = next((other for other in snapshot.others if other.name == view.name), None)
    return now if former is None else f"{now}; {former.slot} {describe_drain(former, snapshot)}"


def describe_drain(view: PoolView, snapshot: Snapshot) -> str:
    """Return the tasks that a draining worker still runs, in words."""
    tasks = Counter(
        child.task_name or "?"
        for child in snapshot.children
        if (child.owner.pool, child.slot) == (view.name, view.slot) and child.task_id is not None
    )
    if not tasks:
        return "drains, and has no task any more"
    return f"drains {format_count(tasks.total(), 'task')}: {', '.join(sorted(tasks))}"
