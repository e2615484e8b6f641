"""Answers the governor on a unix socket, on Celery's own event loop."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import msgspec
from celery import bootsteps
from celery.utils.log import get_logger

from recyclery_worker.link import (
    MAX_PACKET_BYTES,
    ChildStat,
    Done,
    Refused,
    Reply,
    Request,
    Retire,
    SetMaxTasks,
    Stat,
    WorkerStat,
    decode_request,
    encode,
    now,
    worker_socket,
)
from recyclery_worker.pool import RetireRefused, TaskPool, running_tasks

logger = get_logger(__name__)


class LinkServer(bootsteps.StartStopStep):
    """Worker bootstep: one packet in, one packet out, for as long as the worker lives."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._path: Path | None = None
        self._listener: socket.socket | None = None
        self._peers: set[socket.socket] = set()

    def start(self, parent: Any) -> None:
        """Bind the socket; a worker that cannot runs on without it, and says so."""
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

    def stop(self, parent: Any) -> None:
        """Close the socket and take its name away."""
        for peer in self._peers:
            peer.close()
        self._peers.clear()
        if self._listener is not None and self._path is not None:
            self._listener.close()
            self._listener = None
            self._path.unlink(missing_ok=True)

    terminate = stop

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Serve on the hub; called again for each new hub after the broker was away."""
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
                peer.send(encode(answer(worker, packet)))
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        hub.remove_reader(peer)
        self._peers.discard(peer)
        peer.close()


def answer(worker: Any, packet: bytes) -> Reply:
    """Carry out the request in `packet`; one that cannot be read or done is refused with the reason."""
    try:
        request = decode_request(packet)
    except msgspec.DecodeError as error:
        return Refused(reason=f"not a request: {error}")
    try:
        return carry_out(worker, request)
    except Exception as error:  # Whatever goes wrong here must not end the user's worker.
        logger.exception("%s could not be carried out", request)
        return Refused(reason=f"{type(error).__name__}: {error}")


def carry_out(worker: Any, request: Request) -> Reply:
    """Carry out one request on this worker's pool."""
    pool = worker.pool
    if isinstance(request, Stat):
        return stat(worker)
    if not isinstance(pool, TaskPool):
        return Refused(reason=f"this worker's pool ({type(pool).__module__}) cannot do that")
    if missing := pool.missing_hooks():
        return Refused(reason=f"this Celery lacks {', '.join(missing)}")
    if isinstance(request, Retire):
        try:
            pool.retire(request.pid)
        except RetireRefused as refusal:
            return Refused(reason=str(refusal))
        return Done()
    if isinstance(request, SetMaxTasks):
        if request.max_tasks < 1:
            return Refused(reason="max_tasks must be at least 1")
        pool.set_max_tasks(request.max_tasks)
        return Done()
    if request.concurrency < 1:
        return Refused(reason="concurrency must be at least 1")
    change = request.concurrency - pool.num_processes
    pool.resize(request.concurrency)
    if change and worker.consumer is not None:
        worker.consumer._update_prefetch_count(change)
    return Done()


def stat(worker: Any) -> WorkerStat:
    """Return what this worker knows of itself."""
    pool = worker.pool
    supervised = isinstance(pool, TaskPool)
    tasks = dict(running_tasks())
    children = []
    if supervised:
        for process in pool.processes:
            task = tasks.get(process.pid)
            children.append(
                ChildStat(
                    pid=process.pid,
                    tasks_done=process._recyclery.tasks_done,
                    task_id=task.task_id if task else None,
                    task_name=task.name if task else None,
                )
            )
    return WorkerStat(
        pool=os.environ["RECYCLERY_POOL"],
        pid=os.getpid(),
        node=worker.hostname,
        concurrency=pool.num_processes,
        max_tasks_per_child=pool.max_tasks_per_child if supervised else None,
        missing_hooks=pool.missing_hooks() if supervised else ["this pool has no children of its own"],
        children=children,
        departures=list(pool._pool.departures) if supervised else [],
        sent=now(),
    )
