"""Tasks that are cut off: by their worker's stop, or by Celery where a connection was lost."""

from collections.abc import Callable
from typing import Any

from billiard.exceptions import Terminated, WorkerLostError
from billiard.pool import RUN
from celery.concurrency.asynpool import AsynPool
from celery.platforms import EX_FAILURE
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.request import Request

from recyclery_worker.delivery.lease import lease
from recyclery_worker.parking import poison
from recyclery_worker.parking.admission import is_stopping

logger = get_logger(__name__)

# Celery's name for it since 5.6, and before.
CANCEL_RUNNING = ("cancel_active_requests", "cancel_all_unacked_requests")
_cut_off_by_stop: set[str] = set()


def watch_tasks(worker: Any) -> None:
    """Watch for runs that end without a result."""
    kind: Any = Request
    on_failure = kind.on_failure

    def fail(self: Any, exc_info: Any, *args: Any, **options: Any) -> Any:
        result = on_failure(self, exc_info, *args, **options)
        # billiard wraps an exception from a child together with its traceback.
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, (Terminated, WorkerLostError, SystemExit, KeyboardInterrupt)):
            # Celery 5.5 closes the pool first, and says at the end of a cold shutdown that it stops.
            pool = getattr(worker.pool, "_pool", None)
            if is_stopping() or getattr(pool, "_state", RUN) != RUN:
                _cut_off_by_stop.add(self.id)
            elif self._already_cancelled and not self.acknowledged and (held := lease()) is not None:
                # By `worker_cancel_long_running_tasks_on_connection_loss`. Celery relies on the broker, which
                # gives back what a lost connection held.
                held.let_go(self.message)
        return result

    kind.on_failure = fail
    if hasattr(kind, "_announce_cancelled"):
        kind._announce_cancelled = _without_backend(kind._announce_cancelled)
    for name in CANCEL_RUNNING:
        if hasattr(Consumer, name):
            setattr(Consumer, name, _after_reading(getattr(Consumer, name)))


def _without_backend(announce: Callable[..., None]) -> Callable[..., None]:
    """Make the cancelling of tasks go on where their result backend is away.

    Its error would end the handler of QUIT, and could be taken for a lost connection.
    """

    def announce_anyway(self: Any, *args: Any, **options: Any) -> None:
        try:
            announce(self, *args, **options)
        except Exception as error:  # result backends raise errors of many kinds
            logger.warning("no result shows that %s[%s] was cancelled: %s", self.name, self.id, error)
            self._already_cancelled = True

    return announce_anyway


def _after_reading(cancel: Callable[[Any], None]) -> Callable[[Any], None]:
    """Make the cancelling of what runs see what has begun a moment ago.

    A task is known to run when its child's word is read: unread, the stop of the pool would wait for its end.
    """

    def read_and_cancel(consumer: Any) -> None:
        pool = getattr(consumer.pool, "_pool", None)
        if isinstance(pool, AsynPool):
            processes: Any = vars(pool)["_pool"]
            for process in list(processes):
                pool.process_flush_queues(process)
        cancel(consumer)

    return read_and_cancel


def exit_status(status: Any) -> Any:
    """Return a worker's exit status, given Celery's: after a stop 1 where it cut a task off."""
    if not is_stopping():
        return status
    if _cut_off_by_stop or state.active_requests or poison.app_has_failed:
        return 1
    # Celery's is 1 after a Ctrl-C that all tasks outlived, and after an error of the worker itself.
    return 0 if state.should_stop == EX_FAILURE else status
