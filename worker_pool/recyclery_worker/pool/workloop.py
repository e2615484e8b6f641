"""What billiard runs in a pool child, with a session of its own, reports of its tasks, and a clean way out."""

# celery-types does not know the private parts that this rests on.
# mypy: disable-error-code="misc,call-arg"

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from celery.concurrency import asynpool

from recyclery_worker.delivery.lease import ask_before_each, keeper
from recyclery_worker.link import Trace
from recyclery_worker.pool.child import Reporter, become_session_leader, end_session, reporter

if TYPE_CHECKING:
    from recyclery_worker.tracing.traced_child import Canary


class Inbox(Protocol):
    """What a child reads its work from."""

    def fileno(self) -> int:
        """Return its number."""


class Worker(asynpool.Worker):
    """What runs in a pool child."""

    inq: Any
    wait_for_job: Callable[[], Any]
    on_exit: Callable[..., Any] | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The parent counts (see Pool.on_job_ready): what a child is told at its start it keeps for life.
        super().__init__(*args[:5], None, *args[6:], **kwargs)

    def after_fork(self) -> None:
        """Lead a session before anything of the user's runs."""
        become_session_leader()
        super().after_fork()
        told = reporter()
        if told is not None:
            self.wait_for_job = report_tasks(told, self.wait_for_job, self.inq._reader)
        kept = keeper()
        if kept is not None:
            # Outermost: the less lies between this and the task's first line, the better.
            self.wait_for_job = ask_before_each(kept.standing, self.wait_for_job)

    def _do_exit(self, pid: int, exitcode: int | None, exc: BaseException | None = None) -> None:
        """On every way out that comes by here, stop what the tasks have left running.

        After the user's `worker_process_shutdown` handlers: they may want to end some of it themselves.
        """
        handlers = self.on_exit

        def leave(*args: Any) -> None:
            try:
                if handlers is not None:
                    handlers(*args)
            finally:
                end_session()

        self.on_exit = leave
        super()._do_exit(pid, exitcode, exc)


def report_tasks(told: Reporter, wait_for_job: Callable[[], Any], inbox: Inbox) -> Callable[[], Any]:
    """Return `wait_for_job` with a report on either side: asking for a job means that the last one is done.

    Celery's task_prerun and task_postrun signals would do, at several times the price.
    """
    canary: Canary | None = None

    def wait_and_report() -> Any:
        nonlocal canary
        told.task_ended()
        if canary is not None:
            canary.task_ended()
            canary.wait(inbox.fileno())
        message = wait_for_job()
        if isinstance(message, Trace):
            from recyclery_worker.tracing.traced_child import Canary  # noqa: PLC0415  # few children ever trace

            canary = Canary(message, told.tracing_is)
            # As if nothing had come: then it is asked again.
            return None
        if message:
            _, (_, _, _, arguments, _) = message
            # What Celery's tracer is called with begins with the task's name and id.
            if len(arguments) > 1:
                told.task_started(task_id=arguments[1], task_name=arguments[0])
                if canary is not None:
                    canary.task_started(arguments[0])
        return message

    return wait_and_report
