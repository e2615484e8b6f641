"""This worker's lease: kept by a thread of its main process, which also gives back what dead workers hold.

Its state is in memory that the main process shares with the pool's children. The main process asks before it
hands a task over, a child again before it begins: both may have stood still in between, for longer than the
lease.
"""

from __future__ import annotations

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
from recyclery_worker.broker.wait import SAY_EVERY_SECONDS, TRY_EVERY_SECONDS, BrokerWait
from recyclery_worker.compat import describe_missing, missing
from recyclery_worker.delivery.defaults import VISIBILITY_SECONDS
from recyclery_worker.delivery.reclaim import reclaim
from recyclery_worker.delivery.registry import (
    KEY_OPTIONS,
    LEASE_SECONDS,
    RENEW_SECONDS,
    Book,
    Generation,
    new_generation,
    open_book,
)
from recyclery_worker.delivery.unacked import Hand, engage, prepare
from recyclery_worker.link import now
from recyclery_worker.parking.deaths import Starts
from recyclery_worker.parking.store import Lot

LOOK_EVERY_SECONDS = 0.02
VALID_UNTIL, LOST, UNANSWERED = range(3)


class Standing:
    """One lease's state; times in seconds of CLOCK_BOOTTIME, which goes on in a freeze."""

    def __init__(self) -> None:
        # Anonymous and shared, so a fork has the same page; eight bytes are written at once.
        self._shared = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")
        self._main_pid = os.getpid()

    @property
    def is_valid(self) -> bool:
        """Whether nobody can have given our messages away; so too before there is a lease."""
        until = self._shared[VALID_UNTIL]
        return until == 0.0 or now() <= until

    @property
    def is_lost(self) -> bool:
        """Whether our messages were given to others."""
        return self._shared[LOST] != 0.0

    def note_renewed(self, until: float) -> None:
        """Note up to when it is valid."""
        self._shared[VALID_UNTIL] = until

    def note_lost(self) -> None:
        """Note that it is lost, for good."""
        self._shared[LOST] = 1.0

    def note_unanswered(self, asked: float) -> None:
        """Note that Redis was asked at a time, and was away."""
        self._shared[UNANSWERED] = asked

    def is_ours(self) -> bool:
        """Tell, in a child, whether a task may begin; waits until the main process knows.

        It may where Redis is away, for then nobody else has it either. Raises SystemExit when the main process
        is gone: what it handed over will be given to others.
        """
        asked = now()
        while not self.is_valid and not self.is_lost and self._shared[UNANSWERED] < asked:
            if os.getppid() != self._main_pid:
                raise SystemExit("its worker is gone")
            time.sleep(LOOK_EVERY_SECONDS)
        return not self.is_lost


def ask_before_each(standing: Standing, wait_for_job: Callable[[], Any]) -> Callable[[], Any]:
    """Return billiard's `wait_for_job` (`Worker.workloop`) such that what is not ours any more is not run."""

    def wait_and_ask() -> Any:
        message = wait_for_job()
        if message and not standing.is_ours():
            kind, (job, number, _, _, _) = message
            return kind, (job, number, leave_to_others, (), {})
        return message

    return wait_and_ask


def leave_to_others() -> None:
    """Stand in for a task that was given to another worker; Celery stores nothing of one that ends so."""
    raise Ignore("another worker has it")


logger = get_logger(__name__)


class Keeper:
    """The lease of one generation."""

    def __init__(self, app: Any, generation: Generation, hand: Hand) -> None:
        self.generation = generation
        self.standing = Standing()
        self.reclaimed = 0
        self.parked = 0
        self.starts = Starts(generation.id)
        self._app = app
        self._hand = hand
        self._wanted: queue.Queue[str | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._heard_since = 0.0
        self._refused = False

    def begin(self) -> None:
        """Write ourselves down before the first message is taken; raises where Redis is away or refuses."""
        with connected(self._app) as channel:
            book = open_book(channel)
            book.rehearse()
            asked = now()
            book.enter(self.generation)
        self.standing.note_renewed(asked + LEASE_SECONDS)
        engage(self._app, self._hand, self.generation)
        self._thread = threading.Thread(target=self._keep, name="recyclery-lease", daemon=True)
        self._thread.start()

    def reclaim_soon(self, generation_id: str) -> None:
        """Have a generation whose processes are known to be dead given back, lease or not."""
        self._wanted.put(generation_id)

    def end(self) -> None:
        """Give back what is still held, and strike ourselves; nothing runs any more."""
        self._wanted.put(None)
        if self._thread is not None:
            self._thread.join(LEASE_SECONDS)
        try:
            with connected(self._app) as channel:
                self._hand.settle(open_book(channel), self.generation)
            given_back = reclaim(self._app, self.generation)
        except Exception as error:  # Redis is away: another worker does it when the lease has run out.
            logger.warning("what this worker holds will be given back when its lease ends: %s", error)
            return
        if given_back:
            logger.warning("gave back %d unfinished tasks", given_back)

    def assure(self) -> None:
        """Let a task start only while our messages are our own; raises TaskRevokedError when they are not.

        Asked before each start. Without Redis nobody else has them either.
        """
        if not self.standing.is_valid and not self.standing.is_lost:
            asked = now()
            try:
                with connected(self._app) as channel:
                    self._renew(open_book(channel))
            except Exception as error:
                logger.debug("the lease cannot be looked at: %s", error)
                self.standing.note_unanswered(asked)
        if self.standing.is_lost:
            raise TaskRevokedError("another worker has it")

    def _keep(self) -> None:
        while True:
            asked = now()
            try:
                with connected(self._app) as channel:
                    self._heard_since = now()
                    if not self._serve(channel, open_book(channel)):
                        return
            except Exception as error:  # Redis is away, which the worker itself says, or refuses.
                refused = isinstance(error, ResponseError) and not self._refused
                logger.log(
                    logging.ERROR if refused else logging.DEBUG,
                    "this worker's lease is not renewed, so its tasks may be given to others: %s",
                    error,
                )
                self._refused = self._refused or refused
                self.standing.note_unanswered(asked)
                if self._is_told_to_end():
                    return

    def _is_told_to_end(self) -> bool:
        try:
            wanted = self._wanted.get(timeout=RENEW_SECONDS)
        except queue.Empty:
            return False
        if wanted is not None:
            self._wanted.put(wanted)
        return wanted is None

    def _serve(self, channel: Any, book: Book) -> bool:
        """Renew and reclaim, until told to end; raises when Redis does not answer."""
        while True:
            self._renew(book)
            self._refused = False
            self._hand.settle(book, self.generation)
            for tag in self._hand.find_strays(book, self.generation):
                channel.qos.restore_by_tag(tag, leftmost=False)
            lot = Lot(book.client, book.prefix)
            self.starts.renew(lot)
            self.parked = lot.count_parked()
            # After Redis was away all leases look old: their holders get as long to renew them as we had.
            if now() - self._heard_since > LEASE_SECONDS:
                for dead in book.list_dead():
                    self._give_back(dead, "its lease has run out")
            try:
                wanted = self._wanted.get(timeout=RENEW_SECONDS)
            except queue.Empty:
                continue
            if wanted is None:
                # Nothing runs any more. What was cut off was so by our own end, and did not die of itself.
                self.starts.clear(lot)
                return False
            found = book.find(wanted)
            if found is not None:
                self._give_back(found, "its processes are dead")

    def _renew(self, book: Book) -> None:
        asked = now()
        if not book.renew(self.generation):
            if book.was_reclaimed(self.generation) and not self.standing.is_lost:
                self.standing.note_lost()
                logger.critical(
                    "this worker was taken for dead: its tasks were given to others. It starts no more, "
                    "finishes what runs, and ends"
                )
                stop: Any = state
                stop.should_stop = 0
            # Lost with Redis's data, or to be given back once more when we have ended.
            book.enter(self.generation)
        self.standing.note_renewed(asked + LEASE_SECONDS)

    def _give_back(self, dead: Generation, why: str) -> None:
        if dead.id == self.generation.id:
            return
        given_back = reclaim(self._app, dead)
        self.reclaimed += given_back
        if given_back:
            logger.warning("gave back %d tasks of %s (pid %d): %s", given_back, dead.node, dead.pid, why)


_keeper: Keeper | None = None


def keeper() -> Keeper | None:
    """Return this worker's; None where the broker needs none."""
    return _keeper


def starts() -> Starts | None:
    """Return where this worker's runs are written down; None where it keeps no lease."""
    return _keeper.starts if _keeper is not None else None


class LeaseStep(bootsteps.StartStopStep):
    """Worker bootstep: from before the first message is taken until after the last task's process has ended."""

    requires = (BrokerWait,)

    def start(self, parent: Any) -> None:
        """Return when we are written down, or when the worker is asked to stop."""
        assert _keeper is not None  # noqa: S101  # the step is added only where there is one
        said: float | None = None
        while True:
            state.maybe_shutdown()
            try:
                _keeper.begin()
            except NoPermissionError as error:
                step_aside(parent.app, error)
                return
            except Exception as error:  # kombu and redis raise errors of many kinds
                if said is None or time.monotonic() - said >= SAY_EVERY_SECONDS:
                    said = time.monotonic()
                    logger.warning("waiting for a Redis that takes writes: %s", error)
                time.sleep(TRY_EVERY_SECONDS)
            else:
                return


def keep_own_keys(app: Any, node: str) -> str:
    """Give this worker keys and a lease of its own, where its broker is Redis.

    Returns why not, where that is the user's doing.
    """
    global _keeper
    if broker_kind(app) != "redis":
        return ""
    if missing("lease"):
        return f"{describe_missing('lease')}: this worker keeps no lease, so what it holds when it dies waits"
    options = app.conf.broker_transport_options
    if not options.keys().isdisjoint(KEY_OPTIONS):
        return "broker_transport_options name keys for unacknowledged messages: a dead worker's wait there"
    generation = new_generation(node)
    app.conf.broker_transport_options = {
        "visibility_timeout": VISIBILITY_SECONDS,
        **options,
        **generation.keys,
    }
    _keeper = Keeper(app, generation, prepare(app, generation))
    # After the pool has ended: nothing of ours runs.
    signals.worker_shutdown.connect(end_keeping, weak=False, dispatch_uid="recyclery.lease")
    return ""


def step_aside(app: Any, error: Exception) -> None:
    """Go on as Celery does by itself, where Redis does not let us write; nothing has been received yet."""
    global _keeper
    assert _keeper is not None  # noqa: S101  # the step is added only where there is one
    options = dict(app.conf.broker_transport_options)
    prefix = options.get("global_keyprefix", "")
    for option in _keeper.generation.keys:
        del options[option]
    if options.get("visibility_timeout") == VISIBILITY_SECONDS:
        # Without a lease the broker's timeout is all there is.
        del options["visibility_timeout"]
    app.conf.broker_transport_options = options
    _keeper = None
    logger.error(
        "this worker keeps no lease, so what it holds when it dies waits for the broker's visibility timeout: "
        "its Redis user may not use the keys %srecyclery:* (%s). ACL SETUSER ... ~%srecyclery:* +@all would do",
        prefix,
        error,
        prefix,
    )


def end_keeping(**_: Any) -> None:
    """Give back and strike."""
    if _keeper is not None:
        _keeper.end()
