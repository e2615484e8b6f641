"""The main processes' signs of life, by pid, and what follows from the last of each."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from recyclery.common.pool_state import PoolState
from recyclery.observe.snapshot import PoolView, Vitals
from recyclery_worker.link import (
    MAX_PACKET_BYTES,
    VERSION,
    Pulse,
    Reply,
    Request,
    Stat,
    WorkerStat,
    decode_reply,
    encode,
    now,
    worker_socket,
)

# A sign of life comes every other second, and counts for so long.
COUNTS_SECONDS = 10.0
# When its broker is back, a loop needs a moment to be so too.
RETURN_SECONDS = 10.0
FORGOTTEN_SECONDS = 3600.0


class Heartbeats:
    """What threads of the main processes say, whatever their loops do."""

    def __init__(self) -> None:
        self._last: dict[int, Pulse] = {}
        self._away: dict[int, float] = {}

    def hear(self, pulse: Pulse) -> None:
        """Take in a sign of life."""
        self._last[pulse.pid] = pulse
        if pulse.broker_answers is False:
            self._away[pulse.pid] = pulse.sent

    def last(self, pid: int) -> Pulse | None:
        """Return the last sign of a process, however old."""
        return self._last.get(pid)

    def fresh(self, pid: int) -> Pulse | None:
        """Return the last sign of a process, if it still counts."""
        pulse = self._last.get(pid)
        return pulse if pulse is not None and now() - pulse.sent <= COUNTS_SECONDS else None

    def broker_was_away(self, pid: int) -> bool:
        """Tell whether a process has just found its broker away."""
        return pid in self._away and now() - self._away[pid] <= RETURN_SECONDS

    def depth(self, pid: int, queues: Iterable[str]) -> int | None:
        """Return how many messages wait in these queues; None where the process does not know."""
        pulse = self.fresh(pid)
        if pulse is None or pulse.waiting is None:
            return None
        return sum(pulse.waiting.get(queue, 0) for queue in queues)

    def forget(self) -> None:
        """Drop what is known of processes that have long been silent."""
        at = now()
        for pid in [pid for pid, pulse in self._last.items() if at - pulse.sent > FORGOTTEN_SECONDS]:
            del self._last[pid]
            self._away.pop(pid, None)


log = logging.getLogger("recyclery")

WORKER_ANSWER_SECONDS = 2.0
# A worker that is silent this long is not just busy; PID 1 knows whether it lives.
SILENT_SECONDS = 10.0


class WorkerUnavailable(Exception):
    """The worker is not there, busy with its broker, or said what cannot be read."""


async def ask_worker(runtime_dir: Path, slot: str, request: Request) -> Reply:
    """Send one request to the worker in `slot` and return its reply; raises NoAnswer."""
    loop = asyncio.get_running_loop()
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    with link:
        try:
            async with asyncio.timeout(WORKER_ANSWER_SECONDS):
                await loop.sock_connect(link, str(worker_socket(runtime_dir, slot)))
                await loop.sock_sendall(link, encode(request))
                return decode_reply(await loop.sock_recv(link, MAX_PACKET_BYTES))
        except (OSError, TimeoutError, msgspec.DecodeError) as error:
            raise WorkerUnavailable(f"{slot}: {str(error) or 'no answer in time'}") from None


class Workers:
    """What the workers last said of themselves, by slot, and for how long which of them have been silent."""

    def __init__(self, runtime_dir: Path, broker_answers: Callable[[], bool]) -> None:
        self.stats: dict[str, WorkerStat] = {}
        self.heartbeats = Heartbeats()
        self._runtime_dir = runtime_dir
        self._broker_answers = broker_answers
        self._heard: dict[str, tuple[int, float]] = {}
        self._silent: dict[str, PoolState] = {}
        self._last: dict[str, WorkerStat] = {}
        self._told: dict[str, dict[str, tuple[float, Any]]] = {}

    def expect(self, slot: str, **changes: Any) -> None:
        """Take down what the worker was just told, which its last word does not hold yet."""
        at = now()
        self._told.setdefault(slot, {}).update({name: (at, value) for name, value in changes.items()})
        if slot in self._last:
            self.update({slot: self._last[slot]})

    def update(self, stats: Mapping[str, WorkerStat]) -> None:
        """Keep what workers say of themselves, by slot.

        What was sent before the worker was told something does not know of that: taken as it is, the worker
        would be told the same again.
        """
        for slot, stat in stats.items():
            told = self._told.get(slot, {})
            unknown = {name: value for name, (at, value) in told.items() if stat.sent < at}
            self._last[slot] = msgspec.structs.replace(stat, **unknown)

    async def ask(self, running: Mapping[str, int]) -> None:
        """Ask the workers whose main process runs (its pid by the slot), all at once."""
        replies = await asyncio.gather(*(self._ask_stat(slot) for slot in running))
        self.stats = {slot: stat for slot, stat in zip(running, replies, strict=True) if stat is not None}
        self.update(self.stats)
        at = now()
        for name, pid in running.items():
            if name in self.stats or self._heard.get(name, (0, 0.0))[0] != pid:
                self._heard[name] = pid, at
        silent = [name for name in running if at - self._heard[name][1] > SILENT_SECONDS]
        was, self._silent = self._silent, {name: await self._explain(running[name]) for name in silent}
        self.heartbeats.forget()
        for name, state in self._silent.items():
            if was.get(name) != state:
                log.warning("%s has not answered for %g s: %s", name, SILENT_SECONDS, state)
        for name in was.keys() & self.stats.keys():
            log.info("%s answers again", name)

    async def _explain(self, pid: int) -> PoolState:
        """Say why a main process does not answer.

        Celery's loop stands still while it connects again, which is no fault of the worker's: its other thread
        says so. Of one that fell wholly silent only the broker itself can tell; one that is starting has not
        come to its broker yet.
        """
        if self.heartbeats.broker_was_away(pid):
            return PoolState.WAITING_FOR_BROKER
        pulse = self.heartbeats.fresh(pid)
        if pulse is not None or self.heartbeats.last(pid) is None:
            answers = pulse.broker_answers if pulse is not None else None
        else:
            answers = await asyncio.to_thread(self._broker_answers)
        return PoolState.WAITING_FOR_BROKER if answers is False else PoolState.NOT_ANSWERING

    def _vitals(self, view: PoolView) -> Vitals | None:
        last = self._last.get(view.slot)
        if last is None or view.pid is None or last.pid != view.pid:
            return None
        pulse, fresh = self.heartbeats.last(view.pid), self.heartbeats.fresh(view.pid)
        return Vitals(
            pid=view.pid,
            answered=last.sent,
            last_heartbeat=pulse.sent if pulse is not None else None,
            broker_answers=fresh.broker_answers if fresh is not None else None,
            stopping=pulse is not None and pulse.stopping,
            consumes=frozenset(last.consumes),
            received=last.received,
            has_room=last.has_room,
            waiting=self.heartbeats.depth(view.pid, last.consumes),
            overdue=last.overdue,
        )

    def describe(self, view: PoolView) -> PoolView:
        """Return PID 1's view of a worker with what that says, or does not say, laid over it."""
        last, vitals = self._last.get(view.slot), self._vitals(view)
        if last is not None and last.pid == view.pid:
            # Also while it stops, and answers no more.
            view = replace(
                view,
                retires=last.retires,
                leaving=frozenset(left.pid for left in last.departures),
                concurrency=last.concurrency,
                max_tasks_per_child=last.max_tasks_per_child,
                holding=last.holding,
                node=last.node,
                consuming=last.consuming,
                # PID 1 waits some seconds before it calls one that it started running.
                state=PoolState.RUNNING if view.state is PoolState.STARTING and last.consuming else view.state,
                vitals=vitals,
            )
        if view.state is PoolState.RUNNING and vitals is not None and vitals.stopping:
            return replace(view, state=PoolState.DRAINING)
        if view.state is PoolState.RUNNING and view.slot in self._silent:
            return replace(view, state=self._silent[view.slot])
        return view

    async def _ask_stat(self, slot: str) -> WorkerStat | None:
        try:
            reply = await ask_worker(self._runtime_dir, slot, Stat())
        except WorkerUnavailable as silence:
            log.debug("%s", silence)
            return None
        if not isinstance(reply, WorkerStat):
            return None
        if reply.version != VERSION:
            # What it says may mean something else: it is not asked for more, and replaced when need be.
            return msgspec.structs.replace(reply, retires=False, children=[], departures=[])
        return reply
