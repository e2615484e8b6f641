"""This worker's lease: a thread of its main process renews it, and gives back what dead workers hold.

The state of the lease is in memory that the main process shares with the pool's children. The main process
checks it before it hands a task to a child, the child again before it begins: in between both may have been
frozen, for longer than the lease is valid.
"""

import contextlib
import logging
import mmap
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from celery import bootsteps, signals
from celery.exceptions import Ignore, TaskRevokedError
from celery.utils.log import get_logger
from celery.worker import state
from redis.exceptions import NoPermissionError, ResponseError

from recyclery_worker.broker.connection import broker_kind, connected
from recyclery_worker.broker.wait import BrokerWait, wait_until
from recyclery_worker.compat import describe_missing, missing
from recyclery_worker.delivery.receive import ReceiveStep, Unacked, install_qos
from recyclery_worker.delivery.registry import (
    KEY_OPTIONS,
    LEASE_SECONDS,
    RENEW_SECONDS,
    Generation,
    Registry,
    new_generation,
    open_registry,
)
from recyclery_worker.link import now
from recyclery_worker.parking.admission import InFlight, record_worker_death
from recyclery_worker.parking.records import DeadLetterStore

logger = get_logger(__name__)

CHECK_SECONDS = 0.02
# A dead worker is detected by its lease. At this timeout, an hour by default, the broker would give away a task
# that still runs.
VISIBILITY_SECONDS = 30 * 24 * 3600
VALID_UNTIL, LOST, UNANSWERED = range(3)


class LeaseState:
    """One lease's state; times in seconds of CLOCK_BOOTTIME, which goes on while processes are frozen."""

    def __init__(self) -> None:
        # Anonymous and shared: a forked child has the same page, and eight bytes are written at once.
        self._shared = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")
        self._main_pid = os.getpid()

    @property
    def is_valid(self) -> bool:
        """Whether nobody can have given our messages away; true too before there is a lease."""
        until = self._shared[VALID_UNTIL]
        return until == 0.0 or now() <= until

    @property
    def is_lost(self) -> bool:
        """Whether our messages were given to other workers."""
        return self._shared[LOST] != 0.0

    def set_valid_until(self, until: float) -> None:
        self._shared[VALID_UNTIL] = until

    def set_lost(self) -> None:
        self._shared[LOST] = 1.0

    def set_unanswered(self, asked: float) -> None:
        """Record that Redis was asked at a time and did not answer."""
        self._shared[UNANSWERED] = asked

    def wait_until_known(self) -> bool:
        """Return, in a child, whether a task may begin; waits until the main process knows.

        While Redis is away it may, as no other worker has it either. Raises SystemExit when the main process
        is gone: its messages will be given to others.
        """
        asked = now()
        while not self.is_valid and not self.is_lost and self._shared[UNANSWERED] < asked:
            if os.getppid() != self._main_pid:
                raise SystemExit("its worker is gone")
            time.sleep(CHECK_SECONDS)
        return not self.is_lost


def check_lease(lease_state: LeaseState, wait_for_job: Callable[[], Any]) -> Callable[[], Any]:
    """Return billiard's `wait_for_job` (`Worker.workloop`) with a check that skips tasks of a lost lease."""

    def skip_task() -> None:
        # Celery stores no result of a task that ends so.
        raise Ignore("another worker has it")

    def wait_and_check() -> Any:
        message = wait_for_job()
        if message and not lease_state.wait_until_known():
            kind, (job, number, _, _, _) = message
            return kind, (job, number, skip_task, (), {})
        return message

    return wait_and_check


def reclaim(app: Any, generation: Generation) -> int:
    """Give back all that a generation holds to the head of its queues, and deregister it; return how many.

    Its worker must be dead, or have lost its lease. Any number of workers may do it at once, and any of them
    may die: each message moves in one transaction (kombu/transport/redis.py, QoS.restore_by_tag). Raises what
    kombu and redis raise when Redis is away.
    """
    with connected(app, **generation.keys) as channel:
        registry = open_registry(channel)
        if tags := registry.held_tags(generation):
            registry.fence(generation)
            tags = registry.held_tags(generation)
            record_worker_death(channel, generation.id, generation.node, tags)
        for tag in tags:
            # The newest first: tasks are taken from the right, where the oldest must be outermost.
            channel.qos.restore_by_tag(tag, leftmost=False)
        registry.deregister(generation)
    return len(tags)


class Lease:
    """The lease of one generation, and the thread that renews it."""

    def __init__(self, app: Any, generation: Generation) -> None:
        self.generation = generation
        self.state = LeaseState()
        self.reclaimed = self.parked = 0
        self.in_flight = InFlight(generation.id)
        self._app = app
        self._unacked = Unacked(generation)
        # Generations to give back; None ends the thread.
        self._requests: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="recyclery-lease", daemon=True)
        self._is_refused = False

    def begin(self) -> None:
        """Register before the first message is received; raises where Redis is away or refuses."""
        with connected(self._app) as channel:
            registry = open_registry(channel)
            registry.probe()
            asked = now()
            registry.register(self.generation)
        self.state.set_valid_until(asked + LEASE_SECONDS)
        install_qos(self._app, self._unacked)
        self._thread.start()

    def reclaim_soon(self, generation_id: str) -> None:
        """Have the messages of a generation given back whose processes are known to be dead, lease or not."""
        self._requests.put(generation_id)

    def end(self) -> None:
        """Give back what is still held, and deregister; no task runs any more."""
        self._requests.put(None)
        if self._thread.is_alive():
            self._thread.join(LEASE_SECONDS)
        try:
            with connected(self._app) as channel:
                self._unacked.flush_acks(open_registry(channel))
            given_back = reclaim(self._app, self.generation)
        except Exception as error:  # Redis is away: another worker does it once the lease has expired.
            logger.warning("what this worker holds will be given back when its lease ends: %s", error)
            return
        if given_back:
            logger.warning("gave back %d unfinished tasks", given_back)

    def require(self) -> None:
        """Raise TaskRevokedError where the lease is lost; called before each task."""
        # A task may start while Redis is away, as then no other worker has it either.
        if not self.state.is_valid and not self.state.is_lost:
            asked = now()
            try:
                with connected(self._app) as channel:
                    self._renew(open_registry(channel))
            except Exception as error:
                logger.debug("the lease cannot be checked: %s", error)
                self.state.set_unanswered(asked)
        if self.state.is_lost:
            raise TaskRevokedError("another worker has it")

    def _run(self) -> None:
        while True:
            asked = now()
            try:
                with connected(self._app) as channel:
                    self._serve(channel, open_registry(channel))
                    return
            except Exception as error:  # Redis is away, which the worker itself logs, or refuses.
                is_new_refusal = isinstance(error, ResponseError) and not self._is_refused
                self._is_refused |= is_new_refusal
                level = logging.ERROR if is_new_refusal else logging.DEBUG
                text = "this worker's lease is not renewed, so its tasks may be given to others: %s"
                logger.log(level, text, error)
                self.state.set_unanswered(asked)
                with contextlib.suppress(queue.Empty):
                    if (request := self._requests.get(timeout=RENEW_SECONDS)) is None:
                        return
                    self._requests.put(request)

    def _serve(self, channel: Any, registry: Registry) -> None:
        """Renew and reclaim until the thread is to end; raises when Redis does not answer."""
        store, connected_since = DeadLetterStore(registry.client, registry.prefix), now()
        while True:
            self._renew(registry)
            self._is_refused = False
            self._unacked.flush_acks(registry)
            self._unacked.give_back_orphans(channel, registry)
            self.in_flight.update(store)
            self.parked = store.count_parked()
            # After Redis was away all leases look expired: their holders get as long to renew them as we had.
            if now() - connected_since > LEASE_SECONDS:
                for dead in registry.list_dead():
                    self._give_back(dead, "its lease has run out")
            try:
                request = self._requests.get(timeout=RENEW_SECONDS)
            except queue.Empty:
                continue
            if request is None:
                # No task runs any more. Those that were cut off died by our own end.
                self.in_flight.clear(store)
                return
            if (found := registry.find(request)) is not None:
                self._give_back(found, "its processes are dead")

    def _renew(self, registry: Registry) -> None:
        asked = now()
        if not registry.renew(self.generation):
            if registry.was_reclaimed(self.generation) and not self.state.is_lost:
                self.state.set_lost()
                logger.critical(
                    "this worker was taken for dead: its tasks were given to others. It starts no more, "
                    "finishes what runs, and ends"
                )
                stop: Any = state
                stop.should_stop = 0
            # The entry was lost with Redis's data, or what we hold must be given back again when we have ended.
            registry.register(self.generation)
        self.state.set_valid_until(asked + LEASE_SECONDS)

    def _give_back(self, dead: Generation, why: str) -> None:
        if dead.id == self.generation.id:
            return
        given_back = reclaim(self._app, dead)
        self.reclaimed += given_back
        if given_back:
            logger.warning("gave back %d tasks of %s (pid %d): %s", given_back, dead.node, dead.pid, why)


_lease: Lease | None = None


def lease() -> Lease | None:
    return _lease


class LeaseStep(bootsteps.StartStopStep):
    """Worker bootstep: from before the first message is received until the last task's process has ended."""

    requires = (BrokerWait,)

    def start(self, parent: Any) -> None:
        assert _lease is not None  # noqa: S101  # the step is added only where there is one
        lease = _lease

        def try_begin() -> str | None:
            try:
                lease.begin()
            except NoPermissionError as error:
                disable(parent.app, error)
            except Exception as error:  # kombu and redis raise errors of many kinds
                return str(error)
            return None

        wait_until(try_begin, "waiting for a Redis that takes writes: %s")


def set_up(app: Any, node: str) -> str:
    """Give this worker a lease and keys of its own, where its broker is Redis; return why not, to be logged."""
    global _lease
    if broker_kind(app.connection_for_write()) != "redis":
        return ""
    if missing("lease"):
        return f"{describe_missing('lease')}: this worker keeps no lease, so what it holds when it dies waits"
    options = app.conf.broker_transport_options
    if not options.keys().isdisjoint(KEY_OPTIONS):
        return "broker_transport_options name keys for unacknowledged messages: a dead worker's wait there"
    generation = new_generation(node)
    app.conf.broker_transport_options = {"visibility_timeout": VISIBILITY_SECONDS, **options, **generation.keys}
    _lease = Lease(app, generation)
    # It does nothing until `install_qos`.
    app.steps["consumer"].add(ReceiveStep)
    # After the pool has ended, so that no task runs.
    signals.worker_shutdown.connect(end_lease, weak=False, dispatch_uid="recyclery.lease")
    return ""


def disable(app: Any, error: Exception) -> None:
    """Do as Celery does by itself where Redis refuses our writes; nothing has been received yet."""
    global _lease
    given = app.conf.broker_transport_options
    options = {name: value for name, value in given.items() if name not in KEY_OPTIONS}
    prefix = options.get("global_keyprefix", "")
    if options.get("visibility_timeout") == VISIBILITY_SECONDS:
        # Without a lease the broker's timeout is needed.
        del options["visibility_timeout"]
    app.conf.broker_transport_options = options
    _lease = None
    logger.error(
        "this worker keeps no lease, so what it holds when it dies waits for the broker's visibility timeout: "
        "its Redis user may not use the keys %srecyclery:* (%s). ACL SETUSER ... ~%srecyclery:* +@all would do",
        prefix,
        error,
        prefix,
    )


def end_lease(**_: Any) -> None:
    if _lease is not None:
        _lease.end()
