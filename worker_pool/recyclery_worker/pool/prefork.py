"""The prefork pool whose children can be replaced one by one, and whose limits can be changed while it runs.

It rests on private parts of Celery and billiard, which `hooks` names and looks for before this is imported.
"""

# mypy: disable-error-code="attr-defined,misc"

from __future__ import annotations

import contextlib
import gc
import os
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

from billiard import pool as billiard_pool
from celery.concurrency import asynpool, prefork
from celery.signals import worker_before_create_process
from celery.utils.log import get_logger

from recyclery_worker.delivery.lease import keeper
from recyclery_worker.link import Departure, Trace
from recyclery_worker.pool.task_stats import OUTCOMES
from recyclery_worker.pool.workloop import Worker

# celery-types does not know the private parts that this rests on.


logger = get_logger(__name__)

# With several children, each leaves up to this share of the limit early, lest those of one age leave together.
JITTER = 0.3
DEPARTURES_KEPT = 200
COLLECT_EVERY_SECONDS = 1.0


@dataclass(slots=True)
class Record:
    """What the parent keeps of one child."""

    limit: int | None
    tasks_done: int = 0
    stands_by: bool = False
    """Whether it is up before its place is free: it gets no task until another child is let go."""
    leave_for: str = ""
    """Why it is to leave as soon as it can, where it could not at once."""
    leaving: bool = False
    leaves_with_task: bool = False
    """Whether it had a task in hand when it was told to leave, and has not finished that since."""
    traces: bool = False
    """Whether it was told to trace allocations: then it has no limit, and leaves when it is told to."""
    order: Trace | None = None
    """What it is to trace, where it could not be told so at once."""


class Pool(asynpool.AsynPool):
    """Celery's event-driven process pool, with children that make room for a successor.

    A child leaves by the pool's own end-of-work message (None in its inbox), after its inbox was taken from
    the scheduler. Its successor is started before its last task, and stands by until the place is free, so
    that nobody waits for it and no more children work than tasks may run.
    """

    Worker = Worker

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.departures: deque[Departure] = deque(maxlen=DEPARTURES_KEPT)
        self._collected = -COLLECT_EVERY_SECONDS
        super().__init__(*args, **kwargs)

    def WorkerProcess(self, worker: Any) -> Any:
        """Return a process for a child, not yet started."""
        process = super().WorkerProcess(worker)
        process._recyclery = Record(limit=self._draw_limit())
        return process

    def _create_worker_process(self, i: int) -> Any:
        # Celery collects garbage before each fork (celery#2927); with several a second, once is enough.
        worker_before_create_process.send(sender=self)
        if time.monotonic() - self._collected > COLLECT_EVERY_SECONDS:
            gc.collect()
            self._collected = time.monotonic()
        there = list(self._pool)
        try:
            return billiard_pool.Pool._create_worker_process(self, i)
        except OSError:
            # billiard has put it into the pool before it starts it.
            for stillborn in [process for process in self._pool if process not in there]:
                self._pool.remove(stillborn)
                self._queues |= {queues: None for queues, owner in self._queues.items() if owner is stillborn}
            raise

    def _draw_limit(self) -> int | None:
        limit = self._maxtasksperchild
        if limit is None or self._processes == 1:
            return limit
        return max(1, limit - random.randrange(int(limit * JITTER) + 1))  # noqa: S311  # not a secret

    def _track_child_process(self, proc: Any, hub: Any) -> None:
        """Watch a child by its pidfd.

        billiard's sentinel is a pipe whose other end later children inherit: it tells of an exit only once
        they have left too, and until then only the 5 s maintenance timer replaces a child.
        """
        if getattr(proc, "_sentinel_poll", None) is None:
            # An old kernel or a strict seccomp profile has no pidfd: then the sentinel has to do.
            with contextlib.suppress(OSError):
                proc._sentinel_poll = os.pidfd_open(proc.pid)
        super()._track_child_process(proc, hub)

    def on_job_ready(self, job: int, i: int, obj: Any, inqW_fd: int) -> None:
        """Count a child's task; the last but one starts its successor, the last lets it go."""
        super().on_job_ready(job, i, obj, inqW_fd)
        # One that is in the cache no more was given up before, and counted then.
        if (result := self._cache.get(job)) is not None:
            OUTCOMES.note_result(result, obj)
        process = self._process_by_inbox(inqW_fd)
        if process is None:
            return
        record = process._recyclery
        record.tasks_done += 1
        record.leaves_with_task = False
        if record.leaving:
            return
        self._hand_over_order(process)
        if record.leave_for:
            self._let_go(process, record.leave_for)
        elif record.limit is not None and record.tasks_done >= record.limit:
            self._let_go(process, "max_tasks")
        elif record.limit is not None and record.tasks_done == record.limit - 1:
            self._start_standby()

    def _process_by_inbox(self, inbox: int) -> Any:
        process = self._fileno_to_inq.get(inbox)
        if process is not None:
            return process
        return next((process for process in self._pool if process.inqW_fd == inbox), None)

    def on_process_alive(self, pid: int) -> None:
        """A child is up; one that stands by is kept from the scheduler, one that is not wanted leaves."""
        super().on_process_alive(pid)
        process, _ = self._process_by_pid(pid)
        if process is None:
            return
        self._hand_over_order(process)
        if process._recyclery.leave_for:
            self._let_go(process, process._recyclery.leave_for)
        elif process._recyclery.stands_by:
            self._all_inqueues.discard(process.inqW_fd)

    def _start_standby(self) -> None:
        """Start one child more than tasks may run, at most half as many as those."""
        standing_by = sum(process._recyclery.stands_by for process in self._pool)
        if standing_by < max(1, self._processes // 2):
            self._start_child(stands_by=True)

    def _start_child(self, *, stands_by: bool) -> None:
        if self._state != asynpool.RUN:
            return
        if all(owner is not None for owner in self._queues.values()):
            self._queues[self.create_process_queues()] = None
        taken = {child.index for child in self._pool}
        try:
            process = self._create_worker_process(next(i for i in range(len(taken) + 1) if i not in taken))
        except OSError as error:
            # Not to be thrown into the middle of a result's handling: the pool's timer tries again.
            logger.error("no pool child can be started: %s; trying again", error)
            return
        process._recyclery.stands_by = stands_by

    def _fill_up(self) -> None:
        """Have as many children work as tasks may run: those who stand by first, then new ones."""
        records = [process._recyclery for process in self._pool]
        missing = self._processes - sum(not (record.leaving or record.stands_by) for record in records)
        for process in list(self._pool):
            if missing > 0 and process._recyclery.stands_by:
                process._recyclery.stands_by = False
                missing -= 1
                if process.inqW_fd in self._fileno_to_inq:
                    self._all_inqueues.add(process.inqW_fd)
        for _ in range(missing):
            self._start_child(stands_by=False)

    def _let_go(self, process: Any, reason: str) -> None:
        """Let a child leave when it next asks for work."""
        record, inbox = process._recyclery, process.inqW_fd
        record.leaving = True
        record.leaves_with_task = inbox in self._busy_workers
        process._controlled_termination = True
        self.departures.append(Departure(pid=process.pid, reason=reason))
        self._all_inqueues.discard(inbox)
        # Work is handed out while fewer are busy than there are: a leaving child counts among neither.
        self._busy_workers.discard(inbox)
        process.inq.put(None)
        self._fill_up()

    def retire(self, pid: int, reason: str = "asked") -> str:
        """Let the child `pid` leave: at once when it is idle, else after its task, or once it has started.

        Returns why it cannot, empty when it will.
        """
        process, _ = self._process_by_pid(pid)
        if process is None:
            return f"{pid} is not a child of this pool"
        record = process._recyclery
        if record.stands_by:
            return f"{pid} stands by and has had no task"
        if not record.leaving:
            record.leave_for = reason
            # One still starting has no inbox in the scheduler; half a task must not be followed by the end.
            if self._hears(process):
                self._let_go(process, reason)
        return ""

    def trace(self, order: Trace) -> int | None:
        """Have a child trace a task's allocations, an idle one if there is one.

        Returns its pid; None where one does so already, or all are about to leave.
        """
        staying = [
            process
            for process in self._pool
            if not (process._recyclery.leaving or process._recyclery.leave_for or process._recyclery.stands_by)
        ]
        if not staying or any(process._recyclery.traces for process in staying):
            return None
        chosen = min(
            staying,
            key=lambda process: (process.inqW_fd in self._busy_workers, not self._hears(process)),
        )
        record = chosen._recyclery
        record.traces, record.limit, record.order = True, None, order
        if self._hears(chosen):
            self._hand_over_order(chosen)
        pid: int = chosen.pid
        return pid

    def _hears(self, process: Any) -> bool:
        """Whether a child's inbox takes a word: it has started, and is not just being given a task."""
        return process.inqW_fd in self._all_inqueues and process.inqW_fd not in self._active_writes

    def _hand_over_order(self, process: Any) -> None:
        """Give a child its order to trace, if it has one: read when it next asks for work."""
        order, process._recyclery.order = process._recyclery.order, None
        if order is not None:
            process.inq.put(order)

    def set_max_tasks(self, max_tasks: int) -> None:
        """Set the limit for children present and future; one that has reached it leaves after its task."""
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
            # kombu's grow() lets in two where tasks wait.
            self._putlock.initial_value += 1
            self._putlock.release()
        self._fill_up()
        for process in sorted(self._pool, key=lambda child: child.inqW_fd in self._busy_workers):
            if self._processes <= processes:
                break
            record = process._recyclery
            if not (record.leaving or record.leave_for or record.stands_by):
                # Smaller first: else the place would be filled again.
                self._processes -= 1
                self._take_slot_away()
                self.retire(process.pid, "shrink")

    def _take_slot_away(self) -> None:
        """Let one task fewer into the pool; where all slots are taken, the next that comes free is kept."""
        if self._putlock.value > 0:
            self._putlock.shrink()
        else:
            self._putlock.initial_value -= 1
            self._putlock.acquire(bool)

    def grow(self, n: int = 1) -> None:
        """Celery's remote control asks for more."""
        self.resize(self._processes + n)

    def shrink(self, n: int = 1) -> None:
        """Celery's remote control asks for fewer; raises ValueError below one."""
        if n >= self._processes:
            raise ValueError(f"{self._processes} at a time, less {n}, is none")
        self.resize(self._processes - n)

    def flush(self) -> None:
        """Before a warm stop, and when the broker is lost: give back what no child has been given.

        A task that was written to a child will run there, though the child's word is not here yet. Upstream
        gives that one back to the broker too, and it runs twice. When the broker is lost it also forgets which
        children are busy, and up to Celery 5.5 what they run, which then is never acknowledged.
        """
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

    def _maintain_pool(self) -> None:
        """Replace children that have gone.

        The task slot of a child that died with a task in hand is given back here, for no result will do it.
        Upstream gives one back for every child gone, and so lets in a task too many at each recycle.
        """
        in_hand = {process: process._recyclery.tasks_done for process in self._pool if self._has_task(process)}
        exitcodes = self._join_exited_workers()
        with contextlib.suppress(OSError):
            self._repopulate_pool(exitcodes)
        if self._state == asynpool.RUN:
            self._fill_up()
        for process, tasks_done in in_hand.items():
            # One that had sent its result before it died has given the slot back by that.
            if process not in self._pool and process._recyclery.tasks_done == tasks_done:
                self._putlock.release()

    def _has_task(self, process: Any) -> bool:
        """Whether the child has accepted a task whose result is not here; one not accepted is put back."""
        if not process._recyclery.leaves_with_task and process.inqW_fd not in self._busy_workers:
            return False
        return not any(job._write_to is process and not job._accepted for job in self._cache.values())


# celery-types does not know the private parts that this rests on.


class TaskPool(prefork.TaskPool):
    """Celery's prefork pool over `Pool`."""

    Pool = Pool

    @property
    def max_tasks_per_child(self) -> int | None:
        """The limit in force; None for no limit."""
        limit: int | None = self._pool._maxtasksperchild
        return limit

    @property
    def departures(self) -> list[Departure]:
        """The children told to leave lately."""
        return list(self._pool.departures)

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Start a task, unless it is not this worker's any more; raises TaskRevokedError then."""
        kept = keeper()
        if kept is not None:
            kept.assure()
        return super().apply_async(*args, **kwargs)

    def tasks_by_child(self) -> dict[int, int]:
        """Return how many tasks each child has done, by its pid."""
        return {process.pid: process._recyclery.tasks_done for process in self._pool._pool}

    def set_max_tasks(self, max_tasks: int) -> None:
        """See `Pool.set_max_tasks`."""
        self._pool.set_max_tasks(max_tasks)

    def resize(self, processes: int) -> None:
        """See `Pool.resize`."""
        self._pool.resize(processes)

    def trace(self, order: Trace) -> int | None:
        """See `Pool.trace`."""
        pid: int | None = self._pool.trace(order)
        return pid

    def retire(self, pid: int) -> str:
        """See `Pool.retire`."""
        refusal: str = self._pool.retire(pid)
        return refusal


def find_overdue(pool: Any) -> dict[int, float]:
    """Return for how many seconds tasks have been past their hard limits, by their children's pids."""
    return {job._worker_pid: seconds for job, seconds in overdue_jobs(pool)}


def time_out(pool: Any, pid: int) -> str:
    """End a child's task as its hard limit would have; return why that cannot be done, empty when it is."""
    for job, _ in overdue_jobs(pool):
        if job._worker_pid == pid:
            pool.on_hard_timeout(job)
            return ""
    return f"{pid} has no task that is past its hard time limit"


def overdue_jobs(pool: Any) -> Iterator[tuple[Any, float]]:
    """Yield the billiard pool's jobs that are past their hard limit, and by how many seconds."""
    for job in list(pool._cache.values()):
        accepted, limit = job._time_accepted, job._timeout
        if accepted and limit and job._worker_pid and monotonic() > accepted + limit and not job.ready():
            yield job, monotonic() - accepted - limit
