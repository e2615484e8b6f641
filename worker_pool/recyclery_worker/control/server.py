"""Answers the governor on a unix socket, on Celery's own event loop."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path
from typing import Any

import msgspec
from celery import bootsteps
from celery.utils.log import get_logger

from recyclery_worker.control.pause import Holding
from recyclery_worker.control.stats import consumed_queues, has_room, received, running_tasks
from recyclery_worker.delivery.lease import keeper
from recyclery_worker.link import (
    MAX_PACKET_BYTES,
    Canary,
    ChildStat,
    Done,
    Fell,
    Hold,
    Reclaim,
    Refused,
    Reply,
    Request,
    Retire,
    SetConcurrency,
    SetMaxTasks,
    Stat,
    TimeOut,
    Trace,
    WorkerStat,
    decode_request,
    encode,
    now,
    worker_socket,
)
from recyclery_worker.parking.admission import note_fell
from recyclery_worker.pool.capabilities import read_fit
from recyclery_worker.pool.prefork import find_overdue, time_out
from recyclery_worker.pool.task_stats import OUTCOMES

logger = get_logger(__name__)

# How long the thread waits for a peer's request, while others wait for it.
PEER_SECONDS = 2.0


class LinkServer(bootsteps.StartStopStep):
    """Worker bootstep: one packet in, one packet out, for as long as the worker lives."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._holding = Holding(worker)
        self._path: Path | None = None
        self._listener: socket.socket | None = None
        self._peers: set[socket.socket] = set()

    def start(self, parent: Any) -> None:
        """Bind the socket; a worker that cannot runs on without it, and says so.

        Where the pool has no event loop a thread answers.
        """
        path = worker_socket(Path(os.environ["RECYCLERY_RUNTIME_DIR"]), os.environ["RECYCLERY_SLOT"])
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen(64)
        except OSError as error:
            listener.close()
            logger.warning("no link to the governor: %s: %s", path, error.strerror)
            return
        self._path, self._listener = path, listener
        if not parent.use_eventloop:
            listener.setblocking(True)
            threading.Thread(
                target=serve_in_thread, args=(parent, self._holding, listener), daemon=True
            ).start()

    def stop(self, parent: Any) -> None:
        """Close the socket and take its name away."""
        for peer in self._peers:
            peer.close()
        self._peers.clear()
        if self._listener is not None and self._path is not None:
            # A thread that waits for a peer is woken by this, not by the close.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
            self._path.unlink(missing_ok=True)

    terminate = stop

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Serve on the hub; called again for each new hub after the broker was away."""
        self._holding.arm()
        if self._listener is not None:
            hub.add_reader(self._listener, self._accept, worker, hub)
            for peer in self._peers:
                hub.add_reader(peer, self._answer, worker, hub, peer)

    def _accept(self, worker: Any, hub: Any) -> None:
        assert self._listener is not None  # noqa: S101  # registered only when bound
        with contextlib.suppress(BlockingIOError):
            while True:
                peer, _ = self._listener.accept()
                peer.setblocking(False)
                self._peers.add(peer)
                hub.add_reader(peer, self._answer, worker, hub, peer)

    def _answer(self, worker: Any, hub: Any, peer: socket.socket) -> None:
        try:
            packet = peer.recv(MAX_PACKET_BYTES)
            if packet:
                peer.send(encode(answer(worker, self._holding, packet)))
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        hub.remove_reader(peer)
        self._peers.discard(peer)
        peer.close()


def serve_in_thread(worker: Any, holding: Holding, listener: socket.socket) -> None:
    """Answer one peer after the other until the listener is shut."""
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        with peer, contextlib.suppress(OSError):
            peer.settimeout(PEER_SECONDS)
            while packet := peer.recv(MAX_PACKET_BYTES):
                peer.send(encode(answer(worker, holding, packet)))


def answer(worker: Any, holding: Holding, packet: bytes) -> Reply:
    """Carry out the request in `packet`; one that cannot be read or done is refused with the reason."""
    try:
        request = decode_request(packet)
    except msgspec.DecodeError as error:
        return Refused(reason=f"not a request: {error}")
    try:
        return carry_out(worker, holding, request)
    except Exception as error:  # Whatever goes wrong here must not end the user's worker.
        logger.exception("%s could not be carried out", request)
        return Refused(reason=f"{type(error).__name__}: {error}")


def carry_out(worker: Any, holding: Holding, request: Request) -> Reply:
    """Carry out one request on this worker."""
    match request:
        case Stat():
            return stat(worker, holding)
        case Trace():
            return trace(worker, request)
        case Reclaim(generation=generation):
            refusal = reclaim_soon(generation)
        case Fell():
            refusal = hear_of_death(worker, request)
        case Hold():
            refusal = hold(worker, holding, request.seconds)
        case _:
            refusal = read_fit(worker).lack or change_pool(worker, request)
    return Refused(reason=refusal) if refusal else Done()


def hold(worker: Any, holding: Holding, seconds: float) -> str:
    """Stop taking tasks for so long, or take them again; return why it cannot be done, empty when it is."""
    if not worker.use_eventloop:
        return "without an event loop this worker cannot be told to wait"
    if seconds > 0:
        holding.begin(seconds)
    else:
        holding.end()
    return ""


def trace(worker: Any, order: Trace) -> Canary | Refused:
    """Have a child trace a task's allocations; say which one, or why none will."""
    if lack := read_fit(worker).lack:
        return Refused(reason=lack)
    if order.task not in worker.app.tasks:
        return Refused(reason=f"{order.task!r} is no task of this worker's app")
    pid: int | None = worker.pool.trace(order)
    if pid is None:
        return Refused(reason="a child of this pool is traced already, or all of them are about to leave")
    return Canary(pid=pid)


def hear_of_death(worker: Any, fell: Fell) -> str:
    """Take in what the governor saw of a death; return why that is of no use, empty where it is."""
    if keeper() is None:
        return "deaths are counted only with Redis as the broker"
    note_fell(worker.app, fell)
    return ""


def reclaim_soon(generation: str) -> str:
    """Have a dead generation's messages given back; return why that cannot be done, empty when it will."""
    kept = keeper()
    if kept is None:
        return "this worker keeps no lease"
    kept.reclaim_soon(generation)
    return ""


def change_pool(worker: Any, request: Retire | SetMaxTasks | SetConcurrency | TimeOut) -> str:
    """Change our pool; return why it cannot be done, empty when it is."""
    pool = worker.pool
    if isinstance(request, Retire):
        refusal: str = pool.retire(request.pid)
        return refusal
    if isinstance(request, TimeOut):
        return time_out(pool._pool, request.pid)
    if isinstance(request, SetMaxTasks):
        if request.max_tasks < 1:
            return "max_tasks must be at least 1"
        pool.set_max_tasks(request.max_tasks)
        return ""
    if request.concurrency < 1:
        return "concurrency must be at least 1"
    change = request.concurrency - pool.num_processes
    pool.resize(request.concurrency)
    if change and worker.consumer is not None:
        worker.consumer._update_prefetch_count(change)
    return ""


def stat(worker: Any, holding: Holding) -> WorkerStat:
    """Return what this worker knows of itself."""
    pool, fit = worker.pool, read_fit(worker)
    tasks = dict(running_tasks())
    return WorkerStat(
        pool=os.environ["RECYCLERY_POOL"],
        pid=os.getpid(),
        node=worker.hostname,
        concurrency=pool.num_processes,
        max_tasks_per_child=pool.max_tasks_per_child if fit.retires else worker.max_tasks_per_child,
        retires=fit.retires,
        lack=fit.lack,
        children=[
            ChildStat(
                pid=pid,
                tasks_done=tasks_done,
                task_id=tasks[pid].task_id if pid in tasks else None,
                task_name=tasks[pid].name if pid in tasks else None,
            )
            for pid, tasks_done in (pool.tasks_by_child().items() if fit.retires else ())
        ],
        departures=pool.departures if fit.retires else [],
        sent=now(),
        generation=kept.generation.id if (kept := keeper()) else "",
        reclaimed=kept.reclaimed if kept else 0,
        parked=kept.parked if kept else 0,
        holding=holding.on if worker.use_eventloop else None,
        consuming=is_consuming(worker),
        consumes=consumed_queues(worker),
        received=received(),
        has_room=has_room(worker),
        overdue=find_overdue(pool._pool) if fit.retires else {},
        tasks=OUTCOMES.tally() if fit.retires else None,
    )


def is_consuming(worker: Any) -> bool:
    """Tell whether tasks are taken from all queues that the worker is to serve.

    On the event loop nobody asks before the loop waits for them.
    """
    consumer = worker.consumer
    if consumer is None or consumer.task_consumer is None:
        return False
    queues = list(consumer.app.amqp.queues.consume_from)
    return bool(queues) and all(map(consumer.task_consumer.consuming_from, queues))
