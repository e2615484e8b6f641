"""The actions that may be decided on: how history and log name them, and what each changes in `PolicyState`.

`act/perform.py` carries them out. A new `Kill`, `WorkerRequest` or `SupervisordRequest` needs nothing there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from recyclery.decide.policy_state import PolicyState, Successor, without_key
from recyclery.observe.snapshot import LeftoverFiles, Owner, Process
from recyclery_worker import link
from recyclery_worker.link import Fell

# How long a worker stays on hold when nobody renews it.
PAUSE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether an action did what it was for, and the line for the log.

    `refused` where the worker said no, not where it said nothing.
    """

    done: bool
    line: str
    refused: bool = False


class BaseAction:
    """What holds for every action that does not say otherwise."""

    __slots__ = ()
    kind: ClassVar[str]
    """Its name in the history, which reports and the page read: it stays when a class is renamed."""
    words: ClassVar[str]
    """What is done and why, for the log: a format of the action."""
    result_format: ClassVar[str]
    """What follows where a request is granted, likewise."""

    @property
    def summary(self) -> str:
        """What is done and why, for the log."""
        return self.words.format(self)

    @property
    def result(self) -> str:
        """What follows where a request is granted, for the log."""
        return self.result_format.format(self)

    @property
    def is_routine(self) -> bool:
        """Whether it is done so often that only a failure is worth a line."""
        return False

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        """Return the state after it was tried."""
        return state


class Kill(BaseAction):
    """Processes are killed."""

    __slots__ = ()
    processes: tuple[Process, ...]
    reason: str


class WorkerRequest(BaseAction):
    """A worker is asked for something."""

    __slots__ = ()

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        """Return the slot of the worker and what it is sent; `slots` has the serving worker's for each pool."""
        raise NotImplementedError

    @property
    def expected_stat(self) -> Mapping[str, object]:
        """What the worker's reports will say from now on, by their fields."""
        return {}


class SupervisordRequest(BaseAction):
    """PID 1 is asked for a step of a rolling replacement; it keeps the deadlines, also if the governor dies."""

    __slots__ = ()

    def call(self) -> tuple[str, *tuple[str | bool, ...]]:
        """Return the method of its XML-RPC and the arguments."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Reap(Kill):
    """Kill processes that no live task owns (rung 0)."""

    kind: ClassVar[str] = "reap"
    words: ClassVar[str] = "reap {0.cause} of {0.owner.pool}/{0.owner.pid}"
    cause: str
    """`orphans`: their child is dead. `leftovers`: a finished task's browser. `strays`: a browser without its
    chromedriver, or the other way round. `runaway`: a task hangs at it."""
    owner: Owner
    processes: tuple[Process, ...]
    reason: str

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        """Count the browsers."""
        return replace(state, counters=state.counters.with_reaped(self.processes, self.owner.pid))


@dataclass(frozen=True, slots=True)
class KillForeign(Kill):
    """Kill browsers that no pool started; never decided on, only asked for."""

    kind: ClassVar[str] = "evict"
    words: ClassVar[str] = "reap strangers"
    processes: tuple[Process, ...]
    reason: str

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        """Count the browsers."""
        return replace(state, counters=state.counters.with_reaped(self.processes, owner_pid=0))


@dataclass(frozen=True, slots=True)
class Clean(BaseAction):
    """Remove what browsers that are gone have left on disk (rung 0)."""

    kind: ClassVar[str] = "clean"
    words: ClassVar[str] = "clean up"
    is_routine = True
    leftover_files: tuple[LeftoverFiles, ...]


@dataclass(frozen=True, slots=True)
class EndGridSession(BaseAction):
    """End a session that a dead child has open on the Selenium Grid (rung 0)."""

    kind: ClassVar[str] = "endsession"
    words: ClassVar[str] = "end Grid session {0.session} of {0.owner.pool}/{0.owner.pid}, which is dead"
    owner: Owner
    session: str

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        """Count it where it is ended."""
        ended = state.counters.grid_ended + outcome.done
        return replace(state, counters=replace(state.counters, grid_ended=ended))


@dataclass(frozen=True, slots=True)
class Collect(BaseAction):
    """Have a living child collect its ended browser processes (rung 0)."""

    kind: ClassVar[str] = "collect"
    words: ClassVar[str] = "collect in {0.owner.pool}/{0.owner.pid}: {0.reason}"
    is_routine = True
    owner: Owner
    reason: str


@dataclass(frozen=True, slots=True)
class ReportDeath(WorkerRequest):
    """Tell a worker what was seen of a child that died with a task in hand, for the task's own history."""

    kind: ClassVar[str] = "tellfell"
    result_format: ClassVar[str] = "{0.through} takes it down"
    is_routine = True
    through: str
    death: Fell

    @property
    def summary(self) -> str:
        fell = self.death
        return f"note that {fell.pid} died with {fell.tree_bytes >> 20} MiB amid task {fell.task_id}"

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return self.through, self.death


@dataclass(frozen=True, slots=True)
class ReclaimMessages(WorkerRequest):
    """Have what a dead worker held given back to its queues, by the living worker in the slot `through`."""

    kind: ClassVar[str] = "reclaim"
    words: ClassVar[str] = "reclaim what {0.pool} held: {0.reason}"
    result_format: ClassVar[str] = "{0.through} gives it back"
    pool: str
    generation: str
    through: str
    reason: str

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return self.through, link.Reclaim(generation=self.generation)

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        """Keep that it is given back, else it is asked for again."""
        if not outcome.done:
            return state
        given_back = replace(state.lease_owners[self.generation], given_back=True)
        return replace(state, lease_owners={**state.lease_owners, self.generation: given_back})


@dataclass(frozen=True, slots=True)
class Retire(WorkerRequest):
    """Let a child leave after its current task (rung 2)."""

    kind: ClassVar[str] = "retire"
    words: ClassVar[str] = "retire {0.owner.pool}/{0.owner.pid}: {0.reason}"
    result_format: ClassVar[str] = "it leaves as soon as it has no task"
    owner: Owner
    reason: str

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return slots[self.owner.pool], link.Retire(pid=self.owner.pid)

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        """Keep when it was asked for, or count how often in a row it was refused."""
        pool = self.owner.pool
        if outcome.refused:
            return replace(state, refused={**state.refused, pool: state.refused.get(pool, 0) + 1})
        # Where nothing was answered it may have been heard all the same: asked again only after a while.
        refused = without_key(state.refused, pool) if outcome.done else state.refused
        return replace(state, retired={**state.retired, self.owner: at}, refused=refused)


@dataclass(frozen=True, slots=True)
class Dismiss(WorkerRequest):
    """Let a child leave after its current task that is no common one any more."""

    kind: ClassVar[str] = "dismiss"
    words: ClassVar[str] = "dismiss {0.owner.pool}/{0.owner.pid}: {0.reason}"
    result_format: ClassVar[str] = "it leaves as soon as it has no task"
    owner: Owner
    slot: str
    """Of its worker."""
    reason: str

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return self.slot, link.Retire(pid=self.owner.pid)

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        """Keep when it was asked for."""
        return replace(state, dismissed={**state.dismissed, self.owner: at})


@dataclass(frozen=True, slots=True)
class ReplaceWorker(SupervisordRequest):
    """Give a pool a new worker (rung 4)."""

    kind: ClassVar[str] = "replace"
    words: ClassVar[str] = "replace {0.pool}: {0.reason}"
    pool: str
    reason: str
    slot: str = ""
    """Of the worker that is to go."""
    successor: str | None = None
    """The slot in which its successor starts beside it; None where memory does not allow two at once: then it
    stops after its running tasks, and starts anew."""

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
        """Keep that it is under way, or why it came to nothing."""
        state = replace(state, asked=without_key(state.asked, self.pool))
        if not outcome.done:
            return state.with_failed_replacement(self.pool, outcome.line, at)
        state = replace(state, replaced={**state.replaced, self.pool: at})
        if self.pool in state.unhealthy:
            state = state.with_mend(self.pool, at)
        if self.successor is None:
            return state.with_replaced(self.pool)
        return replace(state, successors={**state.successors, self.pool: Successor(self.successor, at)})


@dataclass(frozen=True, slots=True)
class StopOld(SupervisordRequest):
    """Have a worker leave after its running tasks: its successor takes tasks (rung 4, second half)."""

    kind: ClassVar[str] = "leave"
    words: ClassVar[str] = "hand {0.pool} over from {0.slot} to {0.successor}: {0.reason}"
    result_format: ClassVar[str] = "{0.slot} finishes the tasks that it has, and leaves"
    pool: str
    slot: str
    successor: str
    reason: str

    def call(self) -> tuple[str, *tuple[str | bool, ...]]:
        return "recyclery.leave", self.slot

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        """Count the replacement, which is complete."""
        if not outcome.done:
            return state
        return replace(state.with_replaced(self.pool), successors=without_key(state.successors, self.pool))


@dataclass(frozen=True, slots=True)
class AbortRollout(SupervisordRequest):
    """Stop a successor that does not come to take tasks; the worker that it was to follow goes on."""

    kind: ClassVar[str] = "abandon"
    words: ClassVar[str] = "give up {0.slot}, which was to take over {0.pool}: {0.reason}"
    result_format: ClassVar[str] = "the worker that there is goes on"
    pool: str
    slot: str
    reason: str

    def call(self) -> tuple[str, *tuple[str | bool, ...]]:
        return "supervisor.stopProcess", self.slot, False

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        """Keep why the replacement came to nothing."""
        return state.with_failed_replacement(self.pool, outcome.line, at) if outcome.done else state


@dataclass(frozen=True, slots=True)
class KillWorker(Kill):
    """Kill a worker whose main process hears nothing, with all below it; its tasks are given back (rung 4)."""

    kind: ClassVar[str] = "killworker"
    words: ClassVar[str] = "give up on {0.pool}"
    pool: str
    processes: tuple[Process, ...]
    reason: str

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        """Count it, and keep when it was."""
        counters = state.counters.with_recycle(self.pool, "hung")
        return replace(state.with_mend(self.pool, at), counters=counters)


@dataclass(frozen=True, slots=True)
class EnforceTimeLimit(WorkerRequest):
    """Have a worker end a child's task that is past its hard time limit."""

    kind: ClassVar[str] = "timeout"
    words: ClassVar[str] = "time out {0.owner.pool}/{0.owner.pid}: {0.reason}"
    result_format: ClassVar[str] = "it is ended"
    owner: Owner
    reason: str

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return slots[self.owner.pool], link.TimeOut(pid=self.owner.pid)

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        """Keep when it was asked for."""
        return replace(state, timed_out={**state.timed_out, self.owner: at})


@dataclass(frozen=True, slots=True)
class Preempt(Kill):
    """Kill a child's whole session before the kernel picks a victim; its task is redelivered (rung 5)."""

    kind: ClassVar[str] = "preempt"
    words: ClassVar[str] = "preempt {0.owner.pool}/{0.owner.pid}"
    owner: Owner
    processes: tuple[Process, ...]
    reason: str

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        """Keep who it was, and when."""
        return replace(state, preempted=at, preempted_children=state.preempted_children | {self.owner})


@dataclass(frozen=True, slots=True)
class ChangeMaxTasks(WorkerRequest):
    """Set a pool's max-tasks-per-child, for living and coming children (rung 1)."""

    kind: ClassVar[str] = "tune"
    words: ClassVar[str] = "tune {0.pool} to {0.max_tasks} tasks per child: {0.reason}"
    result_format: ClassVar[str] = "in force"
    pool: str
    max_tasks: int
    reason: str

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return slots[self.pool], link.SetMaxTasks(max_tasks=self.max_tasks)

    @property
    def expected_stat(self) -> Mapping[str, object]:
        return {"max_tasks_per_child": self.max_tasks}

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        """Begin to count clean lifetimes again: they are those under the number in force."""
        return replace(state, clean_lifetimes={**state.clean_lifetimes, self.pool: 0})


@dataclass(frozen=True, slots=True)
class Hold(WorkerRequest):
    """Have a pool take no more tasks, or take them again (rung 3)."""

    kind: ClassVar[str] = "hold"
    pool: str
    on: bool
    renewed: bool
    """Whether it only goes on: nothing to say."""
    reason: str

    @property
    def summary(self) -> str:
        return f"{'hold' if self.on else 'let go'} {self.pool}: {self.reason}"

    @property
    def result(self) -> str:
        return "it takes no more tasks" if self.on else "it takes tasks again"

    @property
    def is_routine(self) -> bool:
        return self.renewed

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return slots[self.pool], link.Hold(seconds=PAUSE_SECONDS if self.on else 0)

    @property
    def expected_stat(self) -> Mapping[str, object]:
        return {"holding": self.on}


@dataclass(frozen=True, slots=True)
class ChangeConcurrency(WorkerRequest):
    """Change how many tasks a pool runs at a time."""

    kind: ClassVar[str] = "scale"
    words: ClassVar[str] = "scale {0.pool} to {0.concurrency} at a time: {0.reason}"
    result_format: ClassVar[str] = "in force"
    pool: str
    concurrency: int
    reason: str

    def request(self, slots: Mapping[str, str]) -> tuple[str, link.Request]:
        return slots[self.pool], link.SetConcurrency(concurrency=self.concurrency)

    @property
    def expected_stat(self) -> Mapping[str, object]:
        return {"concurrency": self.concurrency}

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        """Keep when it was changed."""
        return replace(state, scaled={**state.scaled, self.pool: at})


@dataclass(frozen=True, slots=True)
class Warn(BaseAction):
    """Say what no action helps; said once as long as it lasts."""

    kind: ClassVar[str] = "notice"
    words: ClassVar[str] = "{0.text}"
    topic: str
    text: str

    def after(self, state: PolicyState, outcome: Outcome, at: float) -> PolicyState:
        """Keep when it was said."""
        return replace(state, warned={**state.warned, self.topic: at})


Action = (
    Reap | KillForeign | Preempt | KillWorker | Clean | EndGridSession | Collect | Warn
    | ReportDeath | ReclaimMessages | Retire | Dismiss | EnforceTimeLimit | Hold
    | ChangeMaxTasks | ChangeConcurrency | ReplaceWorker | StopOld | AbortRollout
)  # fmt: skip
