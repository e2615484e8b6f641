"""What billiard runs in a pool child, with a session of its own, reports of its tasks, and a clean exit."""

# celery-types does not know the private names.
# mypy: disable-error-code="misc,call-arg"

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery.concurrency import asynpool

from recyclery_worker.delivery.lease import check_lease, lease
from recyclery_worker.link import Trace
from recyclery_worker.pool.child import Reporter, become_session_leader, end_session, reporter

if TYPE_CHECKING:
    from recyclery_worker.tracing.traced_child import TracedChild


class Worker(asynpool.Worker):
    """What runs in a pool child."""

    inq: Any
    wait_for_job: Callable[[], Any]
    on_exit: Callable[..., Any] | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Without max-tasks-per-child: the parent counts (Pool.on_job_ready), as a child could not learn a new
        # limit.
        super().__init__(*args[:5], None, *args[6:], **kwargs)

    def after_fork(self) -> None:
        """Lead a session before any code of the user runs."""
        become_session_leader()
        super().after_fork()
        reports = reporter()
        if reports is not None:
            self.wait_for_job = report_tasks(reports, self.wait_for_job, self.inq._reader)
        held = lease()
        if held is not None:
            # Outermost, so that as little as possible runs between this check and the task's first line.
            self.wait_for_job = check_lease(held.state, self.wait_for_job)

    def _do_exit(self, pid: int, exitcode: int | None, exc: BaseException | None = None) -> None:
        """Stop what the tasks have left running, whichever way this child exits.

        After the user's `worker_process_shutdown` handlers, which may want to end some of it themselves.
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


def report_tasks(reports: Reporter, wait_for_job: Callable[[], Any], inbox: Any) -> Callable[[], Any]:
    """Return `wait_for_job` with a report on either side: a child that asks for a job has ended its last one.

    Celery's task_prerun and task_postrun signals would do the same, at several times the cost.
    """
    traced: TracedChild | None = None

    def wait_and_report() -> Any:
        nonlocal traced
        reports.task_ended()
        if traced is not None:
            traced.task_ended()
            traced.wait(inbox.fileno())
        message = wait_for_job()
        if isinstance(message, Trace):
            from recyclery_worker.tracing.traced_child import TracedChild  # noqa: PLC0415  # few children trace

            traced = TracedChild(message, reports.set_tracing)
            # As if nothing had come: the loop then asks again.
            return None
        if message:
            _, (_, _, _, arguments, _) = message
            # The arguments of Celery's tracer begin with the task's name and id.
            if len(arguments) > 1:
                reports.task_started(task_id=arguments[1], task_name=arguments[0])
                if traced is not None:
                    traced.task_started(arguments[0])
        return message

    return wait_and_report
