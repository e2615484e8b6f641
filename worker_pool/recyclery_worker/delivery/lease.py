"""This worker's lease: a thread of its main process renews it, others give back what dead workers hold.

The thread that renews does nothing else, on a connection of its own: whatever takes time, or waits, is done by
another, the keeper, or by one that ends with its work.

The state of the lease is in memory that the main process shares with the pool's children. The main process
checks it before it hands a task to a child, the child again before it begins: in between both may have been
frozen, for longer than the lease is valid.
"""

import atexit
import contextlib
import logging
import mmap
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from billiard import active_children
from celery import bootsteps, signals
from celery.exceptions import Ignore, TaskRevokedError
from celery.utils.log import get_logger
from celery.worker import state
from redis.exceptions import NoPermissionError, ResponseError

from recyclery_worker.broker.connection import (
    broker_kind,
    connected,
    describe_failure,
    name_wrong_keys,
)
from recyclery_worker.broker.wait import BrokerWait, wait_until
from recyclery_worker.compat import describe_missing, missing
from recyclery_worker.delivery.give_back import give_back
from recyclery_worker.delivery.receive import ReceiveStep, Unacked, install_qos, receive_as_kombu
from recyclery_worker.delivery.registry import (
    KEY_OPTIONS,
    LEASE_SECONDS,
    RENEW_SECONDS,
    Generation,
    LeaseWatch,
    Registry,
    new_generation,
    open_registry,
)
from recyclery_worker.link import now
from recyclery_worker.parking.admission import InFlight, read_in_flight, record_worker_death
from recyclery_worker.parking.begun import forget_begun, read_begun, record_for
from recyclery_worker.parking.records import DeadLetterStore, open_dead_letters

logger = get_logger(__name__)

CHECK_SECONDS = 0.02
CHILD_END_SECONDS = 5
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


def reclaim(app: Any, generation: Generation, *, counts_deaths: bool = True) -> int:
    """Give back all that a generation holds to the head of its queues, and deregister it; return how many.

    Its worker must be dead, or have lost its lease. Any number of workers may do it at once, and any of them
    may die. Raises what kombu and redis raise when Redis is away.
    """
    given_back = 0
    with connected(app, **generation.keys) as channel:
        registry = open_registry(channel)
        if registry.count_held(generation):
            registry.fence(generation)
            held = registry.held(generation)
            begun = read_begun(generation.id) | read_in_flight(open_dead_letters(channel), generation.id)
            if counts_deaths:
                record_worker_death(channel, generation.id, generation.node, held)
            given_back = give_back(channel, registry, generation, held, begun)
        registry.deregister(generation)
    # Of one that held nothing too.
    forget_begun(generation.id)
    return given_back


class Lease:
    """The lease of one generation, and the threads that renew it and that give back."""

    def __init__(self, app: Any, generation: Generation) -> None:
        self.generation = generation
        self.state = LeaseState()
        self.reclaimed = self.parked = 0
        self.in_flight = InFlight(generation.id)
        self._app = app
        self._unacked = Unacked(generation)
        # Generations to give back; None wakes the keeper.
        self._requests: queue.Queue[str | None] = queue.Queue()
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=each, name=name, daemon=True)
            for name, each in {
                "recyclery-lease": (self._keep_renewing, self._note_not_renewed),
                "recyclery-keeper": (self._keep_books, self._note_not_kept),
            }.items()
        ]
        # Generations whose messages are being given back, one after the other.
        self._giving_back: set[str] = set()
        self._one_at_a_time = threading.Lock()
        self._is_refused = False
        self._refusals: set[str] = set()  # What the keeper has logged

    def begin(self) -> None:
        """Register before the first message is received; raises where Redis is away or refuses."""
        with connected(self._app) as channel:
            registry = open_registry(channel)
            registry.probe()
            asked = now()
            registry.register(self.generation)
        self.state.set_valid_until(asked + LEASE_SECONDS)
        install_qos(self._app, self._unacked)
        for thread in self._threads:
            thread.start()

    def reclaim_soon(self, generation_id: str) -> None:
        """Have the messages of a generation given back whose processes are known to be dead, lease or not."""
        self._requests.put(generation_id)

    def let_go(self, message: Any) -> None:
        """Have a message given back that nobody runs any more."""
        self._unacked.let_go(message)
        self._requests.put(None)

    def end(self) -> None:
        """Give back what is still held, and deregister; what still runs is killed."""
        is_begun = self._threads[0].ident is not None
        # A task may fork, and its process exit as this one would.
        if self._is_over.is_set() or not is_begun or os.getpid() != self.generation.pid:
            return
        self._is_over.set()
        self._requests.put(None)
        until = now() + LEASE_SECONDS
        for thread in filter(threading.Thread.is_alive, self._threads):
            thread.join(max(0.0, until - now()))
        try:
            kill_children()
            with connected(self._app) as channel:
                self._unacked.flush_acks(open_registry(channel))
            given_back = reclaim(self._app, self.generation)
        except Exception as error:  # Redis is away: another worker does it once the lease has expired.
            logger.warning(
                "what this worker holds will be given back when its lease ends: %s", describe_failure(error)
            )
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
                logger.debug("the lease cannot be checked: %s", describe_failure(error))
                self.state.set_unanswered(asked)
        if self.state.is_lost:
            raise TaskRevokedError("another worker has it")

    def _repeat(self, work: Callable[[Any, Registry], None], note: Callable[[Exception, float], None]) -> None:
        """Do work that ends with the lease, on a new connection whenever it raises."""
        while not self._is_over.is_set():
            asked = now()
            try:
                with connected(self._app) as channel:
                    work(channel, open_registry(channel))
            except Exception as error:  # Redis is away, which the worker itself logs, or refuses.
                note(error, asked)
                self._is_over.wait(RENEW_SECONDS)

    def _note_not_renewed(self, error: Exception, asked: float) -> None:
        is_new_refusal = isinstance(error, ResponseError) and not self._is_refused
        self._is_refused |= is_new_refusal
        level = logging.ERROR if is_new_refusal else logging.DEBUG
        what = describe_failure(error)
        logger.log(level, "this worker's lease is not renewed, so its tasks may be given to others: %s", what)
        self.state.set_unanswered(asked)

    def _note_not_kept(self, error: Exception, _: float) -> None:
        what = describe_failure(error)
        is_new_refusal = isinstance(error, ResponseError) and what not in self._refusals
        if is_new_refusal:
            self._refusals.add(what)
        level = logging.ERROR if is_new_refusal else logging.DEBUG
        logger.log(level, "the messages of this worker and of dead ones are looked at later: %s", what)

    def _keep_renewing(self, _: Any, registry: Registry) -> None:
        while not self._is_over.is_set():
            self._renew(registry)
            self._is_refused = False
            self._is_over.wait(RENEW_SECONDS)

    def _keep_books(self, _: Any, registry: Registry) -> None:
        """Record what runs, and have given back what nobody runs; raises when Redis does not answer."""
        # After Redis was away nobody has renewed: each connection looks at the leases from the beginning.
        store, watch = DeadLetterStore(registry.client, registry.prefix), LeaseWatch()
        while not self._is_over.is_set():
            self._unacked.flush_acks(registry)
            if orphans := self._unacked.find_orphans(registry):
                self._start_giving_back(self.generation.id, partial(self._give_back_orphans, orphans))
            self.in_flight.update(store)
            for name in watch.find_dead(registry.leases(), now()):
                self._give_back_soon(registry, name, "its lease has run out")
                # Where something of it remains, it is tried again later.
                watch.restart(name)
            try:
                self.parked = store.count_parked()
            except ResponseError as error:
                self._note_not_kept(error, now())
            with contextlib.suppress(queue.Empty):
                if request := self._requests.get(timeout=RENEW_SECONDS):
                    self._give_back_soon(registry, request, "its processes are dead")
        # No task runs any more. Those that were cut off died by our own end.
        self.in_flight.clear(store)

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

    def _give_back_soon(self, registry: Registry, generation_id: str, why: str) -> None:
        if (dead := registry.find(generation_id)) is not None and dead.id != self.generation.id:
            self._start_giving_back(dead.id, partial(self._give_back, dead, why))

    def _start_giving_back(self, generation_id: str, work: Callable[[], None]) -> None:
        """Do it in a thread, as it may take long, unless it is being done."""
        if generation_id not in self._giving_back:
            self._giving_back.add(generation_id)
            name, run = "recyclery-give-back", partial(self._run_giving_back, generation_id, work)
            try:
                threading.Thread(target=run, name=name, daemon=True).start()
            except RuntimeError:  # No thread can be started now: it is found again.
                self._giving_back.discard(generation_id)
                raise

    def _run_giving_back(self, generation_id: str, work: Callable[[], None]) -> None:
        try:
            with self._one_at_a_time:
                work()
        except Exception as error:  # Redis is away: it is found again.
            self._note_not_kept(error, now())
        finally:
            self._giving_back.discard(generation_id)

    def _give_back(self, dead: Generation, why: str) -> None:
        given_back = reclaim(self._app, dead)
        self.reclaimed += given_back
        if given_back:
            logger.warning("gave back %d tasks of %s (pid %d): %s", given_back, dead.node, dead.pid, why)

    def _give_back_orphans(self, orphans: Mapping[str, float | None]) -> None:
        with connected(self._app) as channel:
            self._unacked.give_back_orphans(channel, orphans)


def kill_children() -> None:
    """Kill the pool children that there still are; raises TimeoutError where one does not end."""
    # Not those that the app started by itself and wants to wait for.
    children: list[Any] = [child for child in active_children() if child.daemon]
    for child in children:
        os.kill(child.pid, signal.SIGKILL)
        child.join(CHILD_END_SECONDS)
        if child.is_alive():
            raise TimeoutError(f"process {child.pid} does not end")


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
                prefix = parent.app.conf.broker_transport_options.get("global_keyprefix", "")
                disable(
                    parent.app,
                    f"its Redis user may not use the keys {prefix}recyclery:* ({error}). "
                    f"ACL SETUSER ... ~{prefix}recyclery:* +@all would do",
                )
            except Exception as error:  # kombu and redis raise errors of many kinds
                if not (wrong := name_wrong_keys(parent.app, error)):
                    return describe_failure(error)
                disable(parent.app, wrong)
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
        receive_as_kombu()
        return "broker_transport_options name keys for unacknowledged messages: a dead worker's wait there"
    generation = new_generation(node)
    app.conf.broker_transport_options = {"visibility_timeout": VISIBILITY_SECONDS, **options, **generation.keys}
    _lease = Lease(app, generation)
    record_for(generation.id)
    # It does nothing until `install_qos`.
    app.steps["consumer"].add(ReceiveStep)
    # A warm shutdown sends this when the pool has ended. Other ways out send nothing; at the exit the pool's
    # threads have ended too.
    signals.worker_shutdown.connect(end_lease, weak=False, dispatch_uid="recyclery.lease")
    atexit.register(end_lease)
    return ""


def disable(app: Any, why: str) -> None:
    """Do as Celery does by itself where Redis refuses our writes; nothing has been received yet."""
    global _lease
    given = app.conf.broker_transport_options
    options = {name: value for name, value in given.items() if name not in KEY_OPTIONS}
    if options.get("visibility_timeout") == VISIBILITY_SECONDS:
        # Without a lease the broker's timeout is needed.
        del options["visibility_timeout"]
    app.conf.broker_transport_options = options
    _lease = None
    receive_as_kombu()
    logger.error(
        "this worker keeps no lease, so what it holds when it dies waits for the broker's visibility timeout: "
        "%s",
        why,
    )


def end_lease(**_: Any) -> None:
    if _lease is not None:
        _lease.end()
