"""Every action that may be decided on, each declared once: its names, what it asks of whom, what it changes.

`act/dispatch.py` carries them out. A new `Kill`, `WorkerRequest` or `SupervisordRequest` needs nothing there.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from msgspec import Struct

from recyclery.decide.policy_state import InterruptedTask, PolicyState, Successor, without_key
from recyclery.observe.snapshot import LeftoverFiles, Owner, Process
from recyclery_worker import link

# How long a worker consumes nothing if the pause is not renewed.
PAUSE_CONSUMING_SECONDS = 15.0


class Outcome(Struct, frozen=True):
    """Whether an action succeeded, and the line for the log."""

    done: bool
    line: str
    refused: bool = False
    """Whether the worker answered no; without an answer it is False."""
    raised: bool = False
    """Whether it ended with an unexpected error, so that nothing is known of what it did."""


class BaseAction(Struct, frozen=True):
    """Defaults for every action. Strings ending in `_format` are formats of the action itself."""

    kind: ClassVar[str]
    """Its name in the history, which reports and the page search for: it stays when the class is renamed."""
    line_format: ClassVar[str]
    result_format: ClassVar[str]
    is_routine = False
    """Whether it happens so often that only a failure is logged at level info."""

    @property
    def summary(self) -> str:
        """What is done and why, for the log."""
        return self.line_format.format(self)

    @property
    def result(self) -> str:
        """What follows from a request that was granted, for the log."""
        return self.result_format.format(self)

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        """Return the state after it was tried."""
        return state


class Kill(BaseAction, frozen=True):
    """Kill processes with SIGKILL."""

    processes: tuple[Process, ...]
    reason: str


class WorkerRequest(BaseAction, frozen=True):
    """Send a worker a request over its link."""

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        """Return the worker's slot and the request; `slots` maps each pool to its active worker's slot."""
        raise NotImplementedError

    @property
    def expected_stat(self) -> Mapping[str, object]:
        """The fields of `WorkerStat` that it changes, with their new values."""
        return {}


class SupervisordRequest(BaseAction, frozen=True):
    """Have PID 1 take a step of a rolling replacement; PID 1 keeps its deadlines, even without a governor."""

    pool: str
    reason: str

    def call(self) -> tuple[str, *tuple[str | bool, ...]]:
        """Return the XML-RPC method and its arguments."""
        raise NotImplementedError


class ReapProcesses(Kill, frozen=True):
    """Kill processes that no live task owns (rung 0)."""

    kind = "reap"
    line_format = "reap {0.cause} of {0.owner.pool}/{0.owner.pid}"
    cause: str
    """`orphans` of a dead child, `leftovers` (leaked by a finished task), `strays` (half-dead browsers) or
    `runaway` (a task hangs at it)."""
    owner: Owner
    task: str | None = None
    """Of leftovers: the task that left them, where it is known."""

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        return replace(state, counters=state.counters.with_reaped(self.processes, self.owner.pid))


class KillForeign(Kill, frozen=True):
    """Kill browsers that no pool started. Only `recyclery reap --strangers` asks for it."""

    kind = "evict"
    line_format = "reap strangers"

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        return replace(state, counters=state.counters.with_reaped(self.processes, owner_pid=0))


class KillWorker(Kill, frozen=True):
    """Kill a worker whose main process hangs, and its children. Their tasks return to the queues (rung 4)."""

    kind = "killworker"
    line_format = "give up on {0.pool}"
    pool: str

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        counters = state.counters if outcome.raised else state.counters.with_recycle(self.pool, "hung")
        return replace(state.with_restart(self.pool, at), counters=counters)


class PreemptChild(Kill, frozen=True):
    """Kill a child's whole session before the kernel picks a victim; its task is redelivered (rung 5)."""

    kind = "preempt"
    line_format = "preempt {0.owner.pool}/{0.owner.pid}"
    owner: Owner

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        preempted_children = state.preempted_children | (set() if outcome.raised else {self.owner})
        return replace(state, preempted=at, preempted_children=preempted_children)


class RemoveFiles(BaseAction, frozen=True):
    """Remove files of browsers that have exited (rung 0)."""

    kind = "clean"
    line_format = "clean up"
    is_routine = True
    leftover_files: tuple[LeftoverFiles, ...]


class EndGridSession(BaseAction, frozen=True):
    """End a session that a dead child has open on the Selenium Grid (rung 0)."""

    kind = "endsession"
    line_format = "end Grid session {0.session} of {0.owner.pool}/{0.owner.pid}, which is dead"
    owner: Owner
    session: str

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        ended = state.counters.grid_ended + outcome.done
        return replace(state, counters=replace(state.counters, grid_ended=ended))


class ReapZombies(BaseAction, frozen=True):
    """Signal a living child to wait for its zombie browser processes (rung 0)."""

    kind = "collect"
    line_format = "collect in {0.owner.pool}/{0.owner.pid}: {0.reason}"
    is_routine = True
    owner: Owner
    reason: str


class Warn(BaseAction, frozen=True):
    """Log a condition that no action can fix, once while it lasts."""

    kind = "notice"
    line_format = "{0.text}"
    topic: str
    text: str

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        return replace(state, warned={**state.warned, self.topic: at})


class ReportDeath(WorkerRequest, frozen=True):
    """Tell a worker how a child died during a task, for the task's history of deaths."""

    kind = "tellfell"
    result_format = "{0.through} takes it down"
    is_routine = True
    through: str
    death: link.DeathReport

    @property
    def summary(self) -> str:
        death = self.death
        return f"note that {death.pid} died with {death.tree_bytes >> 20} MiB amid task {death.task_id}"

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return self.through, self.death


class ReclaimMessages(WorkerRequest, frozen=True):
    """Return a dead worker's unacknowledged messages to their queues, by the live worker in slot `through`."""

    kind = "reclaim"
    line_format = "reclaim what {0.pool} held: {0.reason}"
    result_format = "{0.through} gives it back"
    pool: str
    generation: str
    through: str
    reason: str

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return self.through, link.ReclaimRequest(generation=self.generation)

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        if not outcome.done:
            return state
        given_back = replace(state.lease_owners[self.generation], given_back=True)
        return replace(state, lease_owners={**state.lease_owners, self.generation: given_back})


class RetireChild(WorkerRequest, frozen=True):
    """Have a child exit after its current task (rung 2)."""

    kind = "retire"
    line_format = "retire {0.owner.pool}/{0.owner.pid}: {0.reason}"
    result_format = "it leaves as soon as it has no task"
    owner: Owner
    reason: str

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return slots[self.owner.pool], link.RetireRequest(pid=self.owner.pid)

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        pool = self.owner.pool
        if outcome.refused:
            return replace(state, refused={**state.refused, pool: state.refused.get(pool, 0) + 1})
        # A request without an answer may have arrived: it is repeated only after RETIRE_AGAIN_SECONDS.
        refused = without_key(state.refused, pool) if outcome.done else state.refused
        return replace(state, retired={**state.retired, self.owner: at}, refused=refused)


class RetireTraced(WorkerRequest, frozen=True):
    """Have a child that has traced allocations exit after its current task."""

    kind = "dismiss"
    line_format = "dismiss {0.owner.pool}/{0.owner.pid}: {0.reason}"
    result_format = "it leaves as soon as it has no task"
    owner: Owner
    slot: str
    """Of its worker."""
    reason: str

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return self.slot, link.RetireRequest(pid=self.owner.pid)

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        return replace(state, dismissed={**state.dismissed, self.owner: at})


class EnforceTimeLimit(WorkerRequest, frozen=True):
    """Have a worker end a child whose task is past its hard time limit."""

    kind = "timeout"
    line_format = "time out {0.owner.pool}/{0.owner.pid}: {0.reason}"
    result_format = "it is ended"
    owner: Owner
    reason: str

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return slots[self.owner.pool], link.TimeLimitRequest(pid=self.owner.pid)

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        return replace(state, timed_out={**state.timed_out, self.owner: at})


class InterruptTask(WorkerRequest, frozen=True):
    """Raise an exception in a task that is past its memory limit."""

    kind = "interrupt"
    line_format = "tell {0.task_id} in {0.owner.pool}/{0.owner.pid} to end: {0.reason}"
    result_format = "TaskMemoryLimitExceeded is raised in it"
    owner: Owner
    slot: str
    """Of its worker."""
    task_id: str
    reason: str

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return self.slot, link.InterruptTaskRequest(self.owner.pid, self.task_id, self.reason)

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        # Without an answer it may have arrived, and a refusal means that the task has just ended.
        told = InterruptedTask(self.task_id, self.reason, at, arrived=outcome.done)
        return replace(state, interrupted={**state.interrupted, self.owner: told})


class FailTask(WorkerRequest, frozen=True):
    """Fail a task that is past its memory limit and kill its child; the task is not given back."""

    kind = "failtask"
    line_format = "end {0.task_id} with {0.owner.pool}/{0.owner.pid}: {0.reason}"
    result_format = "it has failed, and its child is killed"
    owner: Owner
    slot: str
    """Of its worker."""
    task_id: str
    reason: str

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return self.slot, link.FailTaskRequest(self.owner.pid, self.task_id, self.reason)

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        state = replace(state, failed_tasks={**state.failed_tasks, self.owner: at})
        # Its memory comes back before another child's is looked for.
        return replace(state, preempted=at) if outcome.done else state


class ChangeMaxTasks(WorkerRequest, frozen=True):
    """Set a pool's max-tasks-per-child, for present and future children (rung 1)."""

    kind = "tune"
    line_format = "tune {0.pool} to {0.max_tasks} tasks per child: {0.reason}"
    result_format = "in force"
    pool: str
    max_tasks: int
    reason: str

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return slots[self.pool], link.SetMaxTasksRequest(max_tasks=self.max_tasks)

    @property
    def expected_stat(self) -> Mapping[str, object]:
        return {"max_tasks_per_child": self.max_tasks}

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        # Only lifetimes under the number in force count.
        return replace(state, clean_lifetimes={**state.clean_lifetimes, self.pool: 0})


class PauseConsuming(WorkerRequest, frozen=True):
    """Pause a pool's consuming, or resume it (rung 3)."""

    kind = "hold"
    pool: str
    on: bool
    renewed: bool
    """Whether the pool is paused already, so that there is nothing to log."""
    reason: str

    @property
    def summary(self) -> str:
        return f"{'hold' if self.on else 'let go'} {self.pool}: {self.reason}"

    @property
    def result(self) -> str:
        return "it takes no more tasks" if self.on else "it takes tasks again"

    @property
    def is_routine(self) -> bool:  # type: ignore[override]
        return self.renewed

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return slots[self.pool], link.PauseRequest(seconds=PAUSE_CONSUMING_SECONDS if self.on else 0)

    @property
    def expected_stat(self) -> Mapping[str, object]:
        return {"holding": self.on}


class ChangeConcurrency(WorkerRequest, frozen=True):
    """Set how many tasks a pool runs at once."""

    kind = "scale"
    line_format = "scale {0.pool} to {0.concurrency} at a time: {0.reason}"
    result_format = "in force"
    pool: str
    concurrency: int
    reason: str

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return slots[self.pool], link.SetConcurrencyRequest(concurrency=self.concurrency)

    @property
    def expected_stat(self) -> Mapping[str, object]:
        return {"concurrency": self.concurrency}

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        return replace(state, scaled={**state.scaled, self.pool: at})


class ReplaceWorker(SupervisordRequest, frozen=True):
    """Replace a pool's worker by a new one (rung 4)."""

    kind = "replace"
    line_format = "replace {0.pool}: {0.reason}"
    slot: str = ""
    """Of the old worker."""
    successor: str | None = None
    """The slot in which the successor starts beside it. None where memory, or a beat inside the worker, does
    not allow two workers at once: the old one then drains, and restarts in its slot."""

    @property
    def result(self) -> str:
        if self.successor is None:
            return "it stops after its running tasks, and starts anew"
        return f"{self.successor} starts, and {self.slot} takes tasks until that does"

    def call(self) -> tuple[str, *tuple[str | bool, ...]]:
        if self.successor is None:
            return "recyclery.renew", self.slot
        return "supervisor.startProcess", self.successor, False

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        state = replace(state, asked=without_key(state.asked, self.pool))
        if not outcome.done:
            return state.with_failed_replacement(self.pool, outcome.line, at)
        state = replace(state, replaced={**state.replaced, self.pool: at})
        if self.pool in state.unhealthy:
            state = state.with_restart(self.pool, at)
        if self.successor is None:
            return state.with_replaced(self.pool)
        return replace(state, successors={**state.successors, self.pool: Successor(self.successor, at)})


class StopOld(SupervisordRequest, frozen=True):
    """Drain the old worker: its successor consumes (rung 4, second half)."""

    kind = "leave"
    line_format = "hand {0.pool} over from {0.slot} to {0.successor}: {0.reason}"
    result_format = "{0.slot} finishes the tasks that it has, and leaves"
    slot: str
    successor: str

    def call(self) -> tuple[str, *tuple[str | bool, ...]]:
        return "recyclery.leave", self.slot

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        if not outcome.done:
            return state
        return replace(state.with_replaced(self.pool), successors=without_key(state.successors, self.pool))


class AbortRollout(SupervisordRequest, frozen=True):
    """Stop a successor that does not start consuming; the old worker goes on."""

    kind = "abandon"
    line_format = "give up {0.slot}, which was to take over {0.pool}: {0.reason}"
    result_format = "the worker that there is goes on"
    slot: str

    def call(self) -> tuple[str, *tuple[str | bool, ...]]:
        return "supervisor.stopProcess", self.slot, False

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        return state.with_failed_replacement(self.pool, outcome.line, at) if outcome.done else state


Action = (
    ReapProcesses | KillForeign | KillWorker | PreemptChild
    | RemoveFiles | EndGridSession | ReapZombies | Warn
    | ReportDeath | ReclaimMessages | RetireChild | RetireTraced | EnforceTimeLimit | InterruptTask | FailTask
    | PauseConsuming
    | ChangeMaxTasks | ChangeConcurrency
    | ReplaceWorker | StopOld | AbortRollout
)  # fmt: skip
