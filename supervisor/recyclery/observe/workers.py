"""What workers report: heartbeats, stats and their children's tasks; and which worker of a pool is active."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from recyclery.common.pool_state import PoolState
from recyclery.observe.snapshot import ChildState, EndedTask, Owner, PoolView, Vitals
from recyclery_worker import link
from recyclery_worker.link import ChildReport, WorkerHeartbeat, WorkerStat, now

log = logging.getLogger("recyclery")

# Heartbeats come every two seconds; an older one counts as missing.
FRESH_SECONDS = 10.0
# How long an event loop may need to reconnect after its broker is back.
RECONNECT_SECONDS = 10.0
FORGOTTEN_SECONDS = 3600.0
WORKER_ANSWER_SECONDS = 2.0
# A worker that does not answer for this long is not just busy.
SILENT_SECONDS = 10.0
# A child's report may arrive this much later than its result, or earlier.
REPORT_DELAY_SECONDS = 0.5
# What a task left is found within seconds of its end.
MOST_ENDED_TASKS = 20


class Heartbeats:
    """The latest heartbeats by pid, sent by a thread of each main process, whatever its event loop does."""

    def __init__(self) -> None:
        self.last: dict[int, WorkerHeartbeat] = {}
        """By pid, however old."""
        self._away: dict[int, float] = {}

    def record(self, pulse: WorkerHeartbeat) -> None:
        """Record a heartbeat."""
        self.last[pulse.pid] = pulse
        if pulse.broker_answers is False:
            self._away[pulse.pid] = pulse.sent

    def fresh(self, pid: int) -> WorkerHeartbeat | None:
        """Return the last heartbeat of a process, unless it is too old."""
        pulse = self.last.get(pid)
        return pulse if pulse is not None and now() - pulse.sent <= FRESH_SECONDS else None

    def broker_was_away(self, pid: int) -> bool:
        """Return whether a process recently found its broker away."""
        return pid in self._away and now() - self._away[pid] <= RECONNECT_SECONDS

    def depth(self, pid: int, queues: Iterable[str]) -> int | None:
        """Return how many messages wait in these queues; None where the process does not report it."""
        pulse = self.fresh(pid)
        if pulse is None or pulse.waiting is None:
            return None
        return sum(pulse.waiting.get(queue, 0) for queue in queues)

    def forget(self) -> None:
        """Drop the heartbeats of processes that are long gone."""
        at = now()
        for pid in [pid for pid, pulse in self.last.items() if at - pulse.sent > FORGOTTEN_SECONDS]:
            del self.last[pid]
            self._away.pop(pid, None)


class WorkerUnavailable(Exception):
    """The worker does not run, is busy with its broker, or sent an invalid reply."""


async def ask_worker(runtime_dir: Path, slot: str, request: link.Request) -> link.Reply:
    """Send one request to the worker in `slot` and return its reply; raises WorkerUnavailable."""
    loop = asyncio.get_running_loop()
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    with channel:
        try:
            async with asyncio.timeout(WORKER_ANSWER_SECONDS):
                await loop.sock_connect(channel, str(link.worker_socket(runtime_dir, slot)))
                await loop.sock_sendall(channel, link.encode_message(request))
                return link.decode_reply(await loop.sock_recv(channel, link.MAX_PACKET_BYTES))
        except (OSError, TimeoutError, msgspec.DecodeError) as error:
            raise WorkerUnavailable(f"{slot}: {str(error) or 'no answer in time'}") from None


class Workers:
    """The workers' latest stats by slot, and which workers do not answer."""

    def __init__(self, runtime_dir: Path, broker_answers: Callable[[], bool]) -> None:
        self.stats: dict[str, WorkerStat] = {}
        self.heartbeats = Heartbeats()
        self._runtime_dir = runtime_dir
        self._broker_answers = broker_answers
        self._answered: dict[str, tuple[int, float]] = {}
        self._silent: dict[str, PoolState] = {}
        self._last: dict[str, WorkerStat] = {}
        self._expected: dict[str, dict[str, tuple[float, Any]]] = {}

    def expect(self, slot: str, **changes: Any) -> None:
        """Record what a worker was just told to change, until its stats include it."""
        at = now()
        self._expected.setdefault(slot, {}).update({name: (at, value) for name, value in changes.items()})
        if slot in self._last:
            self.update({slot: self._last[slot]})

    def update(self, stats: Mapping[str, WorkerStat]) -> None:
        """Keep the workers' stats by slot, with the expected changes that they were sent before.

        Without those the next decision would request the same change again.
        """
        for slot, stat in stats.items():
            expected = self._expected.get(slot, {})
            newer = {name: value for name, (at, value) in expected.items() if stat.sent < at}
            self._last[slot] = msgspec.structs.replace(stat, **newer)

    async def poll(self, running: Mapping[str, int]) -> None:
        """Poll all workers whose main process runs (its pid by slot), concurrently."""
        replies = await asyncio.gather(*(self._ask_stat(slot) for slot in running))
        self.stats = {slot: stat for slot, stat in zip(running, replies, strict=True) if stat is not None}
        self.update(self.stats)
        at = now()
        for name, pid in running.items():
            if name in self.stats or self._answered.get(name, (0, 0.0))[0] != pid:
                self._answered[name] = pid, at
        silent = [name for name in running if at - self._answered[name][1] > SILENT_SECONDS]
        was, self._silent = self._silent, {name: await self._explain(running[name]) for name in silent}
        self.heartbeats.forget()
        for name, state in self._silent.items():
            if was.get(name) != state:
                log.warning("%s has not answered for %g s: %s", name, SILENT_SECONDS, state)
        for name in was.keys() & self.stats.keys():
            log.info("%s answers again", name)

    async def _explain(self, pid: int) -> PoolState:
        """Return the state of a main process that does not answer.

        Celery's event loop blocks while it reconnects, which its heartbeat thread reports. Without recent
        heartbeats the broker itself is asked, unless the process never sent one: then it is still starting.
        """
        if self.heartbeats.broker_was_away(pid):
            return PoolState.WAITING_FOR_BROKER
        pulse = self.heartbeats.fresh(pid)
        if pulse is not None or pid not in self.heartbeats.last:
            answers = pulse.broker_answers if pulse is not None else None
        else:
            answers = await asyncio.to_thread(self._broker_answers)
        return PoolState.WAITING_FOR_BROKER if answers is False else PoolState.NOT_ANSWERING

    def describe(self, view: PoolView) -> PoolView:
        """Return PID 1's view of a worker with the worker's own stats and heartbeats."""
        last = self._last.get(view.slot)
        if last is not None and last.pid == view.pid:
            # Also while it stops and no longer answers.
            pulse, fresh = self.heartbeats.last.get(last.pid), self.heartbeats.fresh(last.pid)
            vitals = Vitals(
                pid=last.pid,
                answered=last.sent,
                last_heartbeat=pulse.sent if pulse is not None else None,
                broker_answers=fresh.broker_answers if fresh is not None else None,
                stopping=pulse is not None and pulse.stopping,
                consumes=frozenset(last.consumes),
                received=last.received,
                has_room=last.has_room,
                waiting=self.heartbeats.depth(last.pid, last.consumes),
                overdue=last.overdue,
            )
            view = replace(
                view,
                retires=last.retires,
                leaving=frozenset(left.pid for left in last.departures),
                concurrency=last.concurrency,
                max_tasks_per_child=last.max_tasks_per_child,
                holding=last.holding,
                node=last.node,
                consuming=last.consuming,
                # PID 1 calls a process running only some seconds after its start.
                state=PoolState.RUNNING if view.state is PoolState.STARTING and last.consuming else view.state,
                vitals=vitals,
            )
        if view.state is not PoolState.RUNNING:
            return view
        stopping = view.vitals is not None and view.vitals.stopping
        return replace(view, state=PoolState.DRAINING if stopping else self._silent.get(view.slot, view.state))

    async def _ask_stat(self, slot: str) -> WorkerStat | None:
        try:
            reply = await ask_worker(self._runtime_dir, slot, link.StatRequest())
        except WorkerUnavailable as error:
            log.debug("%s", error)
            return None
        if not isinstance(reply, WorkerStat):
            return None
        if reply.version != link.LINK_VERSION:
            # Another version may mean something else: it gets no requests, and is replaced where necessary.
            return msgspec.structs.replace(reply, retires=False, children=[], departures=[])
        return reply


def choose_active_workers(views: Sequence[PoolView]) -> tuple[tuple[PoolView, ...], tuple[PoolView, ...]]:
    """Return each pool's active worker, and all other workers that have a process.

    Of two workers the older is active until it is told to exit: the younger may never start consuming.
    """
    by_pool: dict[str, list[PoolView]] = {}
    for view in views:
        by_pool.setdefault(view.name, []).append(view)
    active = tuple(choose_active_worker(slots) for slots in by_pool.values())
    return active, tuple(view for view in views if view.pid is not None and view not in active)


def choose_active_worker(slots: Sequence[PoolView]) -> PoolView:
    """Return a pool's active worker; where none is up, the last one."""
    up = [view for view in slots if view.is_in_service]
    if up:
        return min(up, key=lambda view: view.started)
    # One that supervisord will restart comes before one that it has given up.
    return max(slots, key=lambda view: (view.pid is not None, view.state is PoolState.BACKOFF, view.started))


def bind_reports(path: Path) -> socket.socket:
    """Bind and return the datagram socket for reports, 0600; raises OSError."""
    reports = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    path.unlink(missing_ok=True)
    reports.bind(str(path))
    path.chmod(0o600)
    return reports


def read_reports(reports: socket.socket) -> Iterator[link.Report]:
    """Yield all waiting reports; invalid ones and those of another version are dropped and logged."""
    while True:
        try:
            report = link.decode_report(reports.recv(link.MAX_PACKET_BYTES))
        except BlockingIOError:
            return
        except msgspec.DecodeError as error:
            log.warning("a datagram that is no report was dropped: %s", error)
            continue
        if report.version == link.LINK_VERSION:
            yield report
        else:
            log.warning("a report of version %d was dropped: ours is %d", report.version, link.LINK_VERSION)


def apply_report(states: dict[Owner, ChildState], report: ChildReport) -> bool:
    """Apply a child's report; return whether a task has ended."""
    owner = Owner(report.pool, report.pid, report.start_ticks)
    before = states.get(owner, ChildState())
    if report.sent < before.heard:
        return False
    task_started = before.task_started if report.task_id == before.task_id else report.sent
    states[owner] = ChildState(
        tasks_done=report.tasks_done,
        task_id=report.task_id,
        task_name=report.task_name,
        task_started=task_started if report.task_id is not None else None,
        first_task_started=report.first_task_started,
        last_task_ended=report.last_task_ended,
        ended_tasks=add_ended(before.ended_tasks, report),
        heard=report.sent,
        idle_bytes=report.idle_bytes,
        idle_shared_bytes=report.idle_shared_bytes,
        kept=tuple(report.kept),
        remote=tuple(report.remote),
        tracing=report.tracing,
    )
    return report.last_task_ended is not None and report.last_task_ended != before.last_task_ended


def add_ended(known: tuple[EndedTask, ...], report: ChildReport) -> tuple[EndedTask, ...]:
    """Return the ended tasks with the one that a report tells of; a report repeats the last one."""
    name, started, ended = report.last_task_name, report.last_task_started, report.last_task_ended
    if name is None or started is None or ended is None or (known and known[-1].ended == ended):
        return known
    return (*known[1 - MOST_ENDED_TASKS :], EndedTask(name, started, ended))


def apply_worker_stat(states: dict[Owner, ChildState], owners: dict[int, Owner], stat: WorkerStat) -> None:
    """Apply a worker's stat where a datagram is missing: a task has started, or its result has arrived."""
    for child in stat.children:
        owner = owners.get(child.pid)
        if owner is None:
            continue
        before = states.get(owner)
        told: dict[str, Any] = {"task_id": child.task_id, "task_name": child.task_name, "heard": stat.sent}
        if before is None:
            # A restarted governor has no report of a running task, nor when it started.
            if child.task_id is not None:
                states[owner] = ChildState(tasks_done=child.tasks_done, **told)
        elif stat.sent - before.heard < REPORT_DELAY_SECONDS:
            continue
        elif child.task_id is not None and before.task_id != child.task_id:
            states[owner] = replace(before, task_started=stat.sent, **told)
        elif child.task_id is None and before.task_id is not None and child.tasks_done > before.tasks_done:
            ended = stat.sent - REPORT_DELAY_SECONDS
            told |= {"tasks_done": child.tasks_done, "task_started": None, "last_task_ended": ended}
            states[owner] = replace(before, **told)


def forget_children(states: dict[Owner, ChildState], living: set[Owner], at: float) -> None:
    """Drop children that are gone; one that reported before its process was observed is kept for a minute."""
    for owner in [owner for owner, state in states.items() if owner not in living and at - state.heard > 60]:
        del states[owner]
