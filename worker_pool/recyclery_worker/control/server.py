"""Answers the governor's requests on a unix socket, on Celery's own event loop, and sends it the heartbeat.

The heartbeat is a datagram every two seconds, also while the event loop is blocked. With it the governor can
tell a loop that waits for its broker from one that hangs, and both from a process that is stopped or holds the
GIL. A second thread asks the broker, as the loop is blocked while its connection is.
"""

import contextlib
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker import state

from recyclery_worker import link
from recyclery_worker.broker.client_limit import client_limit
from recyclery_worker.broker.connection import (
    BOUNDED_BY_KIND,
    broker_kind,
    connect,
    count_ready,
    count_waiting,
    open_redis,
)
from recyclery_worker.broker.wait import try_write
from recyclery_worker.delivery.lease import lease
from recyclery_worker.link import read_variable
from recyclery_worker.parking.admission import is_stopping, report_death
from recyclery_worker.pool.capabilities import read_capabilities
from recyclery_worker.pool.task_stats import TASK_STATS

logger = get_logger(__name__)

PEER_SECONDS = 2.0  # How long the thread waits for a peer's request, while others wait for it
PAUSE_RETRY_SECONDS = 1.0
HEARTBEAT_SECONDS = 2.0
PROBE_SECONDS = 2.0
OLD_ANSWER_SECONDS = 30.0
STOPPED = "its pool has stopped: the worker ends"


class Pause:
    """The queues that are not consumed now, and until when (seconds of time.monotonic)."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self.queues: list[str] = []
        self._until = 0.0
        self._timer: Any = None

    def begin(self, seconds: float) -> None:
        """Take no more tasks until `end`, or for this time: the death of a governor must not stop a queue.

        Raises what Celery raises when it has no connection; the pause is then on, and expires.
        """
        consumer = self._worker.consumer
        self._until = time.monotonic() + seconds
        self.start_timer()
        for queue in list(consumer.app.amqp.queues.consume_from):
            self.queues.append(queue)
            consumer.cancel_task_queue(queue)

    def end(self) -> None:
        """Take tasks again; raises what Celery raises when it has no connection."""
        while self.queues:
            self._worker.consumer.add_task_queue(self.queues[-1])
            self.queues.pop()
        self._until = 0.0

    def start_timer(self) -> None:
        """Have the pause expire; called again after a reconnect, when Celery 5.5 forgets its timers."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._until:
            left = max(PAUSE_RETRY_SECONDS, self._until - time.monotonic())
            self._timer = self._worker.timer.call_after(left, self._expire)

    def _expire(self) -> None:
        if not self.queues:
            return
        logger.warning("the pause was not renewed: taking tasks again")
        try:
            self.end()
        except Exception:  # Without a connection: the timer tries again.
            logger.exception("the pause could not be ended yet")
            self.start_timer()


class LinkServer(bootsteps.StartStopStep):
    """Worker bootstep: one packet in, one packet out, for as long as the worker lives."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **kwargs: Any) -> None:
        super().__init__(worker, **kwargs)
        self._pause = Pause(worker)
        self._listener: socket.socket | None = None
        self._peers: set[socket.socket] = set()

    def start(self, parent: Any) -> None:
        """Bind the socket, or log why not; without an event loop a thread answers. Start the heartbeat."""
        self._listen(parent)
        # At the first one it is asked.
        start_heartbeat(parent)

    def _listen(self, parent: Any) -> None:
        path = link.worker_socket(Path(read_variable("RECYCLERY_RUNTIME_DIR")), read_variable("RECYCLERY_SLOT"))
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
        self._listener = listener
        if not parent.use_eventloop:
            listener.setblocking(True)
            threading.Thread(target=serve_in_thread, args=(parent, self._pause, listener), daemon=True).start()

    def stop(self, parent: Any) -> None:
        for peer in self._peers:
            peer.close()
        self._peers.clear()
        if self._listener is not None:
            listener, self._listener = self._listener, None
            path = Path(listener.getsockname())
            # This wakes a thread that waits in accept(); closing would not.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            path.unlink(missing_ok=True)

    terminate = stop

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Serve on the hub; called again for each new hub, after a reconnect to the broker."""
        self._pause.start_timer()
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
            if packet := peer.recv(link.MAX_PACKET_BYTES):
                peer.send(link.encode_message(answer_packet(worker, self._pause, packet)))
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        hub.remove_reader(peer)
        self._peers.discard(peer)
        peer.close()


def serve_in_thread(worker: Any, pause: Pause, listener: socket.socket) -> None:
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:  # It was shut down.
            return
        with peer, contextlib.suppress(OSError):
            peer.settimeout(PEER_SECONDS)
            while packet := peer.recv(link.MAX_PACKET_BYTES):
                peer.send(link.encode_message(answer_packet(worker, pause, packet)))


def answer_packet(worker: Any, pause: Pause, packet: bytes) -> link.Reply:
    try:
        request = link.decode_request(packet)
    except msgspec.DecodeError as error:
        return link.Refused(reason=f"not a request: {error}")
    try:
        return carry_out_request(worker, pause, request)
    except Exception as error:  # An error here must not end the user's worker.
        logger.exception("%s could not be carried out", request)
        return link.Refused(reason=f"{type(error).__name__}: {error}")


def carry_out_request(worker: Any, pause: Pause, request: link.Request) -> link.Reply:
    held, refusal = lease(), ""
    match request:
        case link.StatRequest():
            return stat(worker, pause)
        case link.TraceRequest():
            return start_trace(worker, request)
        case link.ReclaimRequest(generation) if held is not None:
            held.reclaim_soon(generation)
        case link.ReclaimRequest():
            refusal = "this worker keeps no lease"
        case link.DeathReport() if held is not None:
            report_death(worker.app, request)
        case link.DeathReport():
            refusal = "deaths are counted only with Redis as the broker"
        case link.PauseRequest() if not worker.use_eventloop:
            refusal = "without an event loop this worker cannot be paused"
        case link.PauseRequest(seconds) if seconds > 0:
            pause.begin(seconds)
        case link.PauseRequest():
            pause.end()
        case _:
            refusal = read_capabilities(worker).lack or change_pool(worker, request)
    return link.Refused(reason=refusal) if refusal else link.RequestDone()


def start_trace(worker: Any, request: link.TraceRequest) -> link.TracingChild | link.Refused:
    """Have a child trace a task's allocations; return which child, or why none will."""
    if lack := read_capabilities(worker).lack:
        return link.Refused(reason=lack)
    if request.task not in worker.app.tasks:
        return link.Refused(reason=f"{request.task!r} is no task of this worker's app")
    if (children := worker.pool.children) is None:
        return link.Refused(reason=STOPPED)
    if (pid := children.trace(request)) is not None:
        return link.TracingChild(pid=pid)
    return link.Refused(reason="a child of this pool is traced already, or all of them are about to leave")


def change_pool(worker: Any, request: link.Request) -> str:
    """Change our pool; return why not, empty where it is done."""
    if (children := worker.pool.children) is None:
        return STOPPED
    match request:
        case link.RetireRequest(pid):
            return str(children.retire(pid))
        case link.TimeLimitRequest() | link.InterruptTaskRequest() | link.FailTaskRequest():
            return end_task(children, request)
        case link.SetMaxTasksRequest(max_tasks) if max_tasks < 1:
            return "max_tasks must be at least 1"
        case link.SetMaxTasksRequest(max_tasks):
            children.set_max_tasks(max_tasks)
        case link.SetConcurrencyRequest(concurrency) if concurrency < 1:
            return "concurrency must be at least 1"
        case link.SetConcurrencyRequest(concurrency):
            change = concurrency - worker.pool.num_processes
            children.resize(concurrency)
            if change and worker.consumer is not None:
                worker.consumer._update_prefetch_count(change)
    return ""


def end_task(
    children: Any, request: link.TimeLimitRequest | link.InterruptTaskRequest | link.FailTaskRequest
) -> str:
    """End a task of our pool; return why not, empty where it is done."""
    match request:
        case link.TimeLimitRequest(pid):
            return str(children.enforce_time_limit(pid))
        case link.InterruptTaskRequest(pid, task_id, reason):
            return str(children.interrupt_task(pid, task_id, reason))
        case link.FailTaskRequest(pid, task_id, reason):
            return str(children.fail_task(pid, task_id, reason))


def stat(worker: Any, pause: Pause) -> link.WorkerStat:
    pool, capabilities, held = worker.pool, read_capabilities(worker), lease()
    children = pool.children if capabilities.retires else None
    # Requests that have no pid, or ours, are not with a child.
    tasks = {
        request.worker_pid: (request.id, request.name)
        for request in list(state.active_requests)
        if getattr(request, "worker_pid", None)
    }
    return link.WorkerStat(
        pool=read_variable("RECYCLERY_POOL"),
        pid=os.getpid(),
        node=worker.hostname,
        concurrency=pool.num_processes,
        max_tasks_per_child=children.max_tasks if children else worker.max_tasks_per_child,
        retires=capabilities.retires,
        lack=capabilities.lack,
        children=[
            link.ChildStat(pid, tasks_done, *tasks.get(pid, (None, None)))
            for pid, tasks_done in (children.tasks_by_child().items() if children else ())
        ],
        departures=list(children.departures) if children else [],
        sent=link.now(),
        generation=held.generation.id if held else "",
        reclaimed=held.reclaimed if held else 0,
        parked=held.parked if held else 0,
        holding=bool(pause.queues) if worker.use_eventloop else None,
        consuming=is_consuming(worker, pause),
        consumes=list(worker.app.amqp.queues.consume_from),
        received=TASK_STATS.received,
        has_room=has_room(worker),
        overdue=children.overdue_seconds() if children else {},
        tasks=TASK_STATS.tally() if children else None,
    )


def is_consuming(worker: Any, pause: Pause) -> bool:
    """Return whether tasks are taken from all queues that the worker is to serve."""
    # On an event loop this is answered only once the loop runs and so waits for tasks.
    tasks: Any = getattr(worker.consumer, "task_consumer", None)
    queues = list(worker.app.amqp.queues.consume_from)
    # There is none to serve in a pause, or where an operator cancelled them all.
    is_paused = bool(pause.queues) and not queues
    return tasks is not None and not is_paused and all(map(tasks.consuming_from, queues))


def has_room(worker: Any) -> bool:
    """Return whether it could take a task: it has fewer than it may run, and nothing else limits it."""
    if worker.consumer is None or worker.app.conf.get("worker_eta_task_limit"):
        return False
    queues = worker.app.amqp.queues.consume_from.values()
    if any((queue.queue_arguments or {}).get("x-single-active-consumer") for queue in queues):
        return False  # RabbitMQ gives everything to another worker.
    if any(bucket is not None and bucket.contents for bucket in worker.consumer.task_buckets.values()):
        return False  # by a rate limit
    return len(state.reserved_requests) < int(worker.pool.num_processes)


def start_heartbeat(worker: Any) -> None:
    """Start its threads, which run until the process ends, as the loop is blocked longest in a drain."""
    kind, name = broker_kind(worker.app.connection_for_read()), "recyclery-heartbeat"
    probe = BrokerProbe(worker.app, kind)
    if kind in BOUNDED_BY_KIND:  # Of others no timeout would bound the answer.
        threading.Thread(target=probe.run, name="recyclery-broker-probe", daemon=True).start()
    threading.Thread(target=send_heartbeats, args=(worker, probe), name=name, daemon=True).start()


class BrokerProbe:
    """Whether the broker answers, a Redis writes too, and how many messages wait; of RabbitMQ and Redis."""

    def __init__(self, app: Any, kind: str) -> None:
        self._answers: bool | None = None  # None where the broker is not asked, or was not yet
        self._waiting: dict[str, int] | None = None  # Messages by queue; None while that is not known
        self._known_at = -OLD_ANSWER_SECONDS
        self._app, self._kind = app, kind
        # Messages wait in a queue too that an operator cancelled for a while.
        self._queues: dict[str, None] = dict.fromkeys(app.amqp.queues.consume_from)

    def known(self) -> tuple[bool | None, dict[str, int] | None]:
        """Return whether the broker answers and how many messages wait, where it was asked of late."""
        # With gevent RabbitMQ's client knows no timeout: what it once said shows nothing of now.
        is_fresh = time.monotonic() - self._known_at < OLD_ANSWER_SECONDS
        return (self._answers, self._waiting) if is_fresh else (None, None)

    def note(self, *, answers: bool, waiting: dict[str, int] | None) -> None:
        self._answers, self._waiting, self._known_at = answers, waiting, time.monotonic()

    def run(self) -> None:
        options = BOUNDED_BY_KIND[self._kind]
        while True:
            try:
                with self._app.connection_for_read(transport_options=options) as connection:
                    connect(connection)
                    while True:
                        self.note(answers=True, waiting=self._ask(connection))
                        time.sleep(PROBE_SECONDS)
            except Exception as error:  # transports raise errors of many kinds; the loop meets them too
                self.note(answers=False, waiting=None)
                logger.debug("the broker's queues cannot be counted: %s", error)
                client_limit.look_at(error)
            time.sleep(PROBE_SECONDS)

    def _ask(self, connection: Any) -> dict[str, int]:
        self._queues |= dict.fromkeys(self._app.amqp.queues.consume_from)
        if self._kind != "redis":
            return {queue: count_ready(connection, queue) for queue in self._queues}
        channel = connection.default_channel
        try_write(channel)
        waiting = {queue: count_waiting(channel, queue) for queue in self._queues}
        client, _ = open_redis(channel)
        client_limit.look(client)
        return waiting


def send_heartbeats(worker: Any, probe: BrokerProbe) -> None:
    """Send a heartbeat every two seconds, whether or not a governor receives it."""
    path = str(link.governor_socket(Path(read_variable("RECYCLERY_RUNTIME_DIR"))))
    ends: Any = bootsteps
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        while True:
            answers, waiting = probe.known()
            heartbeat = link.WorkerHeartbeat(
                pool=read_variable("RECYCLERY_POOL"),
                pid=os.getpid(),
                sent=link.now(),
                broker_answers=answers,
                waiting=waiting,
                # By a signal, by remote control, or as its lease was lost.
                stopping=is_stopping() or worker.blueprint.state in {ends.CLOSE, ends.TERMINATE},
            )
            with contextlib.suppress(OSError):
                sock.sendto(link.encode_message(heartbeat), path)
            time.sleep(HEARTBEAT_SECONDS)
