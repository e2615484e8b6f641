"""The prefork pool whose children can be replaced one by one, and whose limits can be changed while it runs.

It uses private names of Celery and billiard; `recyclery_worker.pool` imports it only where all of them are
there.
"""

# celery-types does not know the private names.
# mypy: disable-error-code="attr-defined,call-arg,misc"

import contextlib
import gc
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from billiard import pool as billiard_pool
from billiard.einfo import ExceptionInfo
from celery.concurrency import asynpool, prefork
from celery.signals import worker_before_create_process
from celery.utils.log import get_logger

from recyclery_worker.delivery.lease import check_lease, lease
from recyclery_worker.link import Departure, TraceRequest
from recyclery_worker.parking.begun import BegunTask, forget_child, recorded_worker
from recyclery_worker.pool.child import Reporter, become_session_leader, end_session_members, reporter
from recyclery_worker.pool.cold_stop import stop_between_messages
from recyclery_worker.pool.task_limit import LimitNote, TaskMemoryLimitExceeded
from recyclery_worker.pool.task_stats import TASK_STATS

if TYPE_CHECKING:
    from recyclery_worker.tracing.traced_child import TracedChild

logger = get_logger(__name__)

# With several children, each leaves up to this share of the limit early, so that they do not all leave at once.
JITTER = 0.3
DEPARTURES_KEPT = 200
COLLECT_EVERY_SECONDS = 1.0


class Worker(asynpool.Worker):
    """What runs in a pool child."""

    inq: Any
    wait_for_job: Callable[[], Any]
    on_exit: Callable[..., Any] | None
    begun: BegunTask | None = None
    limit_note: LimitNote

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Without max-tasks-per-child and max-memory-per-child: the parent has it leave (on_job_ready), as a
        # child could not learn a new limit, and one that leaves by itself may have been sent the next task.
        super().__init__(*args[:5], None, *args[6:], **{**kwargs, "max_memory_per_child": None})

    def after_fork(self) -> None:
        """Lead a session before any code of the user runs."""
        become_session_leader()
        super().after_fork()
        if (reports := reporter()) is not None:
            self.wait_for_job = report_tasks(reports, self.wait_for_job, self.inq._reader)
            self.limit_note.listen(lambda: reports.task_id)
        if worker := recorded_worker():
            self.begun = BegunTask(worker)
            self.wait_for_job = record_tasks(self.begun, self.wait_for_job)
        if (held := lease()) is not None:
            # Outermost, so that as little as possible runs between this check and the task's first line.
            self.wait_for_job = check_lease(held.state, self.wait_for_job)

    def _do_exit(self, pid: int, exitcode: int | None, exc: BaseException | None = None) -> None:
        """Stop what the tasks have left running, whichever way this child exits."""
        # After the user's `worker_process_shutdown` handlers, which may want to end some of it themselves.
        handlers = self.on_exit

        def leave(*args: Any) -> None:
            try:
                if handlers is not None:
                    handlers(*args)
            finally:
                end_session_members()
                if self.begun is not None:
                    self.begun.close()

        self.on_exit = leave
        super()._do_exit(pid, exitcode, exc)


def report_tasks(reports: Reporter, wait_for_job: Callable[[], Any], inbox: Any) -> Callable[[], Any]:
    """Return `wait_for_job` with reports: a child that asks for a job has ended its last one."""
    # Celery's task_prerun and task_postrun signals would do the same, at several times the cost.
    traced: TracedChild | None = None

    def wait_and_report() -> Any:
        nonlocal traced
        reports.task_ended()
        if traced is not None:
            traced.task_ended()
            traced.wait(inbox.fileno())
        message = wait_for_job()
        if isinstance(message, TraceRequest):
            from recyclery_worker.tracing.traced_child import TracedChild  # noqa: PLC0415  # few children trace

            traced = TracedChild(message, reports.set_tracing)
            # As if nothing had come: the loop then asks again.
            return None
        # The arguments of Celery's tracer begin with the task's name and id.
        if message and len(arguments := message[1][3]) > 1:
            reports.task_started(task_id=arguments[1], task_name=arguments[0])
            if traced is not None:
                traced.task_started(arguments[0])
        return message

    return wait_and_report


def record_tasks(record: BegunTask, wait_for_job: Callable[[], Any]) -> Callable[[], Any]:
    """Return `wait_for_job` with a record of the task that has begun."""

    def wait_and_record() -> Any:
        record.end()
        message = wait_for_job()
        # The arguments of Celery's tracer are the task's name, its id, its request and so on.
        if isinstance(message, tuple) and len(arguments := message[1][3]) > 2:
            record.start(arguments[1], arguments[2])
        return message

    return wait_and_record


def read_peak_kib(pid: int) -> int:
    """Return the most resident memory that a process has had: what max-memory-per-child means; 0 if unknown."""
    with contextlib.suppress(OSError):
        peak = Path(f"/proc/{pid}/status").read_bytes().partition(b"\nVmHWM:")[2].split(None, 1)
        return int(peak[0]) if peak else 0
    return 0


@dataclass(slots=True)
class ChildRecord:
    """What the parent knows of one child."""

    limit: int | None
    limit_note: LimitNote
    tasks_done: int = 0
    standby: bool = False  # Started before its place is free: it gets no task until another child is released
    retire_reason: str = ""  # Why it must leave as soon as it can; empty where it may stay
    leaving: bool = False
    leaves_with_task: bool = False  # It had a task when it was told to leave, and has not finished it yet
    traces: bool = False  # Told to trace allocations: it then has no limit, and leaves only when it is retired
    trace_request: TraceRequest | None = None  # What it is to trace, where this could not be sent to it yet

    @property
    def stays(self) -> bool:
        """Whether it works and need not leave."""
        return not (self.standby or self.retire_reason or self.leaving)


class ChildPool(asynpool.AsynPool):
    """Celery's event-driven process pool, with children that are replaced one by one.

    A child leaves by the pool's own end-of-work message (None in its inbox), after its inbox was taken from
    the scheduler. Its successor is started before its last task and is on standby until the place is free: no
    task waits for a process to start, and never do more children work than tasks may run.
    """

    Worker = Worker

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.departures: deque[Departure] = deque(maxlen=DEPARTURES_KEPT)
        self._collected = -COLLECT_EVERY_SECONDS
        self._warned_of_max_memory = False
        super().__init__(*args, **kwargs)

    def WorkerProcess(self, worker: Any) -> Any:
        worker.limit_note = LimitNote()
        process = super().WorkerProcess(worker)
        process._recyclery = ChildRecord(limit=self._draw_limit(), limit_note=worker.limit_note)
        return process

    def _create_worker_process(self, i: int) -> Any:
        # Celery collects garbage before each fork (celery#2927); once a second is enough.
        worker_before_create_process.send(sender=self)
        if time.monotonic() - self._collected > COLLECT_EVERY_SECONDS:
            gc.collect()
            self._collected = time.monotonic()
        before = list(self._pool)
        try:
            return billiard_pool.Pool._create_worker_process(self, i)
        except OSError:
            # billiard puts a process into the pool before it starts it.
            for failed in [child for child in self._pool if child not in before]:
                self._pool.remove(failed)
                self._queues |= {queues: None for queues, owner in self._queues.items() if owner is failed}
            raise

    def _draw_limit(self) -> int | None:
        limit = self._maxtasksperchild
        if limit is None or self._processes == 1:
            return limit
        return max(1, limit - random.randrange(int(limit * JITTER) + 1))  # noqa: S311  # not a secret

    def _track_child_process(self, proc: Any, hub: Any) -> None:
        """Watch a child by its pidfd."""
        # billiard's sentinel is a pipe whose other end later children inherit, so it signals an exit only after
        # they have left too; until then only the 5 s maintenance timer replaces a child.
        if getattr(proc, "_sentinel_poll", None) is None:
            # An old kernel or a strict seccomp profile has no pidfd: the sentinel must do.
            with contextlib.suppress(OSError):
                proc._sentinel_poll = os.pidfd_open(proc.pid)
        super()._track_child_process(proc, hub)

    def on_job_ready(self, job: int, i: int, obj: Any, inqW_fd: int) -> None:
        """Count a child's task; after the last but one start its successor, after the last retire it."""
        super().on_job_ready(job, i, obj, inqW_fd)
        # A job that left the cache was given up and counted before, at its hard time limit just as it ended. By
        # its result billiard releases no slot.
        if (result := self._cache.get(job)) is not None:
            TASK_STATS.record_result(result, obj)
        else:
            self._putlock.release()
        owners = (child for child in self._pool if child.inqW_fd == inqW_fd)
        if (process := self._fileno_to_inq.get(inqW_fd) or next(owners, None)) is None:
            return
        record = process._recyclery
        record.tasks_done += 1
        record.leaves_with_task = False
        if record.leaving:
            return
        self._send_trace_request(process)
        if record.retire_reason:
            self._release(process, record.retire_reason)
        elif record.limit is not None and record.tasks_done >= record.limit:
            self._release(process, "max_tasks")
        elif (most := self._max_memory_per_child) and read_peak_kib(process.pid) > most:
            self._release(process, "max_memory")
        elif record.limit is not None and record.tasks_done == record.limit - 1:
            self._start_child(standby=True)

    def on_process_alive(self, pid: int) -> None:
        """Handle a child's start: keep one on standby from the scheduler, release one that must leave."""
        super().on_process_alive(pid)
        process, _ = self._process_by_pid(pid)
        if process is None:
            return
        self._warn_of_max_memory(pid)
        self._send_trace_request(process)
        if process._recyclery.retire_reason:
            self._release(process, process._recyclery.retire_reason)
        elif process._recyclery.standby:
            self._all_inqueues.discard(process.inqW_fd)

    def _warn_of_max_memory(self, pid: int) -> None:
        """Warn once where a child that has had no task is above Celery's max-memory-per-child."""
        most = self._max_memory_per_child
        if most and not self._warned_of_max_memory and (peak := read_peak_kib(pid)) > most:
            self._warned_of_max_memory = True
            logger.warning(
                "a new child has %d MiB, and max-memory-per-child is %d MiB: each will leave after one task",
                peak >> 10,
                most >> 10,
            )

    def _start_child(self, *, standby: bool) -> None:
        """Start a child; there are at most half as many on standby as tasks may run."""
        standbys = sum(child._recyclery.standby for child in self._pool)
        if self._state != asynpool.RUN or (standby and standbys >= max(1, self._processes // 2)):
            return
        if all(owner is not None for owner in self._queues.values()):
            self._queues[self.create_process_queues()] = None
        taken = {child.index for child in self._pool}
        try:
            process = self._create_worker_process(next(i for i in range(len(taken) + 1) if i not in taken))
        except OSError as error:
            # Must not interrupt the handling of a result; the pool's timer tries again.
            logger.error("no pool child can be started: %s; trying again", error)
            return
        process._recyclery.standby = standby

    def _fill_up(self) -> None:
        """Have as many children work as tasks may run: those on standby first, then new ones."""
        records = [process._recyclery for process in self._pool]
        missing = self._processes - sum(not (record.leaving or record.standby) for record in records)
        for process in list(self._pool):
            if missing > 0 and process._recyclery.standby:
                process._recyclery.standby = False
                missing -= 1
                if process.inqW_fd in self._fileno_to_inq:
                    self._all_inqueues.add(process.inqW_fd)
        for _ in range(missing):
            self._start_child(standby=False)

    def _release(self, process: Any, reason: str) -> None:
        """Have a child leave when it next asks for work."""
        record, inbox = process._recyclery, process.inqW_fd
        record.leaving = True
        record.leaves_with_task = inbox in self._busy_workers
        process._controlled_termination = True
        self.departures.append(Departure(pid=process.pid, reason=reason))
        self._all_inqueues.discard(inbox)
        # Work is handed out while fewer children are busy than there are: a leaving one counts in neither.
        self._busy_workers.discard(inbox)
        process.inq.put(None)
        self._fill_up()

    def retire(self, pid: int, reason: str = "asked") -> str:
        """Have a child leave, at once when idle, else after its task or its start; return why not, or empty."""
        process, _ = self._process_by_pid(pid)
        if process is None:
            return f"{pid} is not a child of this pool"
        record = process._recyclery
        if record.standby:
            return f"{pid} stands by and has had no task"
        if not record.leaving:
            record.retire_reason = reason
            # A starting child has no inbox in the scheduler yet; nothing may follow half a task.
            if self._takes_messages(process):
                self._release(process, reason)
        return ""

    def trace(self, request: TraceRequest) -> int | None:
        """Have a child trace, an idle one if possible; return its pid, None where one does or none stays."""
        staying = [process for process in self._pool if process._recyclery.stays]
        if not staying or any(process._recyclery.traces for process in staying):
            return None
        staying.sort(key=lambda child: (child.inqW_fd in self._busy_workers, not self._takes_messages(child)))
        chosen, record = staying[0], staying[0]._recyclery
        record.traces, record.limit, record.trace_request = True, None, request
        if self._takes_messages(chosen):
            self._send_trace_request(chosen)
        return int(chosen.pid)

    def _takes_messages(self, process: Any) -> bool:
        """Return whether a child's inbox can be written to: it has started, and no task is being written."""
        return process.inqW_fd in self._all_inqueues and process.inqW_fd not in self._active_writes

    def _send_trace_request(self, process: Any) -> None:
        """Send a child its trace request, if it has one: it reads that when it next asks for work."""
        request, process._recyclery.trace_request = process._recyclery.trace_request, None
        if request is not None:
            process.inq.put(request)

    @property
    def max_tasks(self) -> Any:
        """How many tasks a child may do; None for no limit."""
        return self._maxtasksperchild

    def tasks_by_child(self) -> dict[int, int]:
        """Return how many tasks each child has done, by its pid."""
        return {process.pid: process._recyclery.tasks_done for process in self._pool}

    def set_max_tasks(self, max_tasks: int) -> None:
        """Set the limit for present and future children; one that has reached it leaves after its task."""
        self._maxtasksperchild = max_tasks
        for process in list(self._pool):
            record = process._recyclery
            if record.traces:
                continue
            record.limit = self._draw_limit()
            if record.tasks_done >= (record.limit or 0) and not record.leaving:
                self.retire(process.pid, "max_tasks")

    def resize(self, processes: int) -> None:
        """Set how many tasks run at a time. Fewer: idle children leave at once, busy ones after their task."""
        for _ in range(processes - self._processes):
            self._processes += 1
            # kombu's grow() lets two tasks in where tasks wait.
            self._putlock.initial_value += 1
            self._putlock.release()
        self._fill_up()
        for process in sorted(self._pool, key=lambda child: child.inqW_fd in self._busy_workers):
            if self._processes <= processes:
                break
            if process._recyclery.stays:
                # Before the child leaves, or its place would be filled again.
                self._processes -= 1
                self._remove_slot()
                self.retire(process.pid, "shrink")

    def _remove_slot(self) -> None:
        """Let one task fewer into the pool; where all slots are taken, the next to become free is removed."""
        if self._putlock.value > 0:
            self._putlock.shrink()
        else:
            self._putlock.initial_value -= 1
            self._putlock.acquire(bool)

    def grow(self, n: int = 1) -> None:
        """Handle pool_grow of Celery's remote control."""
        self.resize(self._processes + n)

    def shrink(self, n: int = 1) -> None:
        """Handle pool_shrink of Celery's remote control; raises ValueError below one."""
        if n >= self._processes:
            raise ValueError(f"{self._processes} at a time, less {n}, is none")
        self.resize(self._processes - n)

    def flush(self) -> None:
        """Give back what no child was sent, before a warm shutdown and when the broker connection is lost."""
        # A task that was written to a child will run there, even if the child has not accepted it yet. Upstream
        # gives it back to the broker too, so it runs twice. When the connection is lost, upstream also forgets
        # which children are busy, and up to Celery 5.5 what they run, which is then never acknowledged.
        written = {
            number: job
            for number, job in self._cache.items()
            if job._write_to is not None and job._write_to.inqW_fd not in self._active_writes
        }
        for job in written.values():
            job._accepted = True
        super().flush()
        if self._state != asynpool.RUN:
            return
        for number, job in written.items():
            if not job.ready() and job._write_to in self._pool:
                self._cache[number] = job
                if not job._write_to._recyclery.leaving:
                    self._busy_workers.add(job._write_to.inqW_fd)

    def on_job_process_down(self, job: Any, pid_gone: Any) -> None:
        """Put back the job of a child that died before it accepted it."""
        # Where several children die at once, upstream comes here with those too that are not collected yet, and
        # whose last words nobody has read: a task that had begun would run again, with no death counted, and
        # even if it is early. The child would be forgotten, and its slot with it.
        process = job._write_to
        if process in self._pool:
            if not job._accepted:
                self.process_flush_queues(process)
            if job._accepted:
                # What becomes of it is decided when its child is collected.
                return
        super().on_job_process_down(job, pid_gone)

    def _maintain_pool(self) -> None:
        # The slot of a child that died during a task is released here, as no result will release it. Upstream
        # releases one for every child that exits, and so lets in a task too many at each recycle.
        before = list(self._pool)
        written = {child: self._written(child) for child in before if self._has_slot(child)}
        tasks_done = {child: child._recyclery.tasks_done for child in written}
        exitcodes = self._join_exited_workers()
        if worker := recorded_worker():
            # One that was killed leaves it as if its task still ran.
            for process in before:
                if process not in self._pool:
                    forget_child(worker, process.pid)
        with contextlib.suppress(OSError):
            self._repopulate_pool(exitcodes)
        if self._state == asynpool.RUN:
            self._fill_up()
        for process, jobs in written.items():
            # Where it had sent its result before it died, that released the slot; a task that it had not
            # accepted keeps it for another child. Both may be known only now.
            is_done = process._recyclery.tasks_done != tasks_done[process]
            if process not in self._pool and not is_done and all(job._accepted for job in jobs):
                self._putlock.release()

    def did_start_ok(self) -> bool:
        """Return whether children can start, where Celery ends a worker if not: one that was killed can."""
        before = list(self._pool)
        self._maintain_pool()
        return all(child in self._pool or (child.exitcode or 0) < 0 for child in before)

    def _has_slot(self, process: Any) -> bool:
        """Return whether the child was given a task and has not sent its result."""
        return bool(process._recyclery.leaves_with_task or process.inqW_fd in self._busy_workers)

    def _written(self, process: Any) -> list[Any]:
        """Return the jobs that were given to a child and are not done."""
        return [job for job in self._cache.values() if job._write_to is process]

    def overdue_seconds(self) -> dict[int, float]:
        """Return for how long tasks have been past their hard time limits, by their children's pids."""
        # Celery 5.5 forgets the limits of running tasks when it reconnects to its broker (celery/celery#10888).
        return {job._worker_pid: seconds for job, seconds in self._overdue_jobs()}

    def enforce_time_limit(self, pid: int) -> str:
        """End a child's overdue task as its hard limit would have; return why not, empty where it is done."""
        for job, _ in self._overdue_jobs():
            if job._worker_pid == pid:
                self.on_hard_timeout(job)
                return ""
        return f"{pid} has no task that is past its hard time limit"

    def interrupt_task(self, pid: int, task_id: str, reason: str) -> str:
        """Raise TaskMemoryLimitExceeded in a child's task; return why not, empty where that was asked for."""
        if (found := self._find_running(pid, task_id)) is None:
            return f"{pid} does not run {task_id}"
        process, _ = found
        # One that is dead already is collected soon.
        with contextlib.suppress(ProcessLookupError):
            process._recyclery.limit_note.send(pid, task_id, reason)
        return ""

    def fail_task(self, pid: int, task_id: str, reason: str) -> str:
        """Fail a child's task with TaskMemoryLimitExceeded and end the child; return why not, or empty."""
        if (found := self._find_running(pid, task_id)) is None:
            return f"{pid} does not run {task_id}"
        process, job = found
        # As at a hard time limit, but the way an exception goes: it is not given back, whatever the app says of
        # timeouts.
        try:
            raise TaskMemoryLimitExceeded(reason)
        except TaskMemoryLimitExceeded:
            job._set(job._job, (False, ExceptionInfo()))
        self.departures.append(Departure(pid=pid, reason="task_memory"))
        self._timeout_handler._trywaitkill(process)
        return ""

    def _find_running(self, pid: int, task_id: str) -> tuple[Any, Any] | None:
        """Return a child and its job, where this is the task that it runs."""
        process, _ = self._process_by_pid(pid)
        jobs = (job for job in list(self._cache.values()) if job._worker_pid == pid and not job.ready())
        job = next((job for job in jobs if job.correlation_id == task_id), None)
        return (process, job) if process is not None and job is not None else None

    def _overdue_jobs(self) -> Iterator[tuple[Any, float]]:
        now = time.monotonic()
        for job in list(self._cache.values()):
            accepted, limit = job._time_accepted, job._timeout
            if accepted and limit and job._worker_pid and now > accepted + limit and not job.ready():
                yield job, now - accepted - limit


class TaskPool(prefork.TaskPool):
    """Celery's prefork pool over `ChildPool`."""

    Pool = ChildPool

    def on_start(self) -> None:
        super().on_start()
        stop_between_messages(self)

    @property
    def children(self) -> Any:
        """The pool of processes; None once it has stopped, which a worker does before it ends."""
        return self._pool

    @property
    def num_processes(self) -> int:
        return int(self.limit if self._pool is None else self._pool._processes)

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Start a task; raises TaskRevokedError where this worker's lease is lost.

        Raises TypeError, ValueError or OverflowError at a time limit that is no number: Celery reads it when
        the task has begun, and that would end this worker.
        """
        for name in ("timeout", "soft_timeout"):
            if seconds := kwargs.get(name):
                number = float(seconds)
                kwargs[name] = number if isinstance(seconds, str) else seconds
        if (held := lease()) is not None:
            held.require()
        return super().apply_async(*args, **kwargs)
