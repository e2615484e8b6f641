"""What a worker is told by its environment, and the messages between it and the governor, as JSON.

A pool child sends `ChildReport` datagrams to `governor.sock`, a main process its heartbeat,
`WorkerHeartbeat`. The governor asks a worker's main process on its `worker-POOL.sock` (SOCK_SEQPACKET: one
request, one reply). Each packet is one object. Times are seconds of CLOCK_BOOTTIME, the clock of starttime in
/proc/PID/stat, so that a process's start can be compared with a task's.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

LINK_VERSION = 1
MAX_PACKET_BYTES = 128 * 1024
# After this many deaths of its process a task is parked, unless the pool's settings say otherwise.
DEFAULT_MAX_DEATHS = 3
# Sent by the governor to have a child reap zombie browsers. It is ignored by default, so it does no harm to a
# child whose code uses the signal for something else.
COLLECT_SIGNAL = signal.SIGURG
# Environment variable `RUN/POOL/PID/START_TICKS`, which everything that a pool child starts inherits.
CHILD_MARKER = "RECYCLERY_CHILD"
# Upper bounds of the histogram of running times; a last bucket has what took longer.
SECONDS_BOUNDS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)

# Of the worker, before the app is imported: the app's code may change or clear its environment.
_environment: dict[str, str] = {}


def keep_environment() -> None:
    """Remember the environment as it is now."""
    _environment.update(os.environ)


def read_variable(name: str) -> str:
    """Return a variable of the environment that was kept, or else of the present one; empty if not set."""
    return (_environment or os.environ).get(name, "")


class ChildReport(msgspec.Struct, kw_only=True, tag="child"):
    """The whole state of one pool child, sent when a task starts or ends; a lost report does not matter."""

    # Only the child itself changes it.
    version: int = LINK_VERSION
    pool: str
    pid: int
    start_ticks: int
    tasks_done: int
    task_id: str | None
    task_name: str | None
    first_task_started: float
    last_task_ended: float | None
    sent: float
    idle_bytes: int = 0  # Its own anonymous memory when its last task ended or its first began; 0: not known
    idle_shared_bytes: int = 0  # Shared memory that the child had mapped at that time
    ended: dict[str, int] = {}  # How many tasks ended since the previous report, by name
    kept: list[int] = []  # Pids of the chromedrivers whose browsers the child keeps for its next tasks
    remote: list[str] = []  # Ids of its open sessions on the Selenium Grid at SELENIUM_REMOTE_URL
    tracing: Literal["", "on", "over"] = ""  # Whether it traces allocations; "over": it did and must be retired
    last_task_name: str | None = None  # Of the task that ended last
    last_task_started: float | None = None  # When that one started


class WorkerHeartbeat(msgspec.Struct, frozen=True, kw_only=True, tag="pulse"):
    """A main process's heartbeat, sent every two seconds by a thread."""

    version: int = LINK_VERSION
    pool: str
    pid: int
    sent: float
    broker_answers: bool | None = None  # None where the broker is not probed
    waiting: dict[str, int] | None = None  # Waiting messages by queue; None where that is not known
    stopping: bool = False  # Whether it was told to stop


class StatRequest(msgspec.Struct, frozen=True, tag="stat"):
    """Ask a worker for its children and limits; answered by `WorkerStat`."""


class RetireRequest(msgspec.Struct, frozen=True, tag="retire"):
    """Have one child leave after its task, at once when idle; answered by `RequestDone` or `Refused`."""

    pid: int


class SetMaxTasksRequest(msgspec.Struct, frozen=True, tag="set_max_tasks"):
    """Set max-tasks-per-child for present and future children; answered by `RequestDone` or `Refused`."""

    max_tasks: int


class SetConcurrencyRequest(msgspec.Struct, frozen=True, tag="set_concurrency"):
    """Set how many tasks run at the same time; answered by `RequestDone` or `Refused`."""

    concurrency: int


class PauseRequest(msgspec.Struct, frozen=True, tag="hold"):
    """Pause consuming for this time, with 0 resume it; answered by `RequestDone` or `Refused`."""

    seconds: float


class ReclaimRequest(msgspec.Struct, frozen=True, tag="reclaim"):
    """Have the messages of a dead worker's generation given back; answered by `RequestDone` or `Refused`."""

    generation: str


class DeathReport(msgspec.Struct, frozen=True, tag="fell"):
    """Report the death of any worker's pool child during a task; answered by `RequestDone` or `Refused`."""

    pid: int
    task_id: str
    tree_bytes: int
    how: str = ""  # Why it died, where that is known


class TimeLimitRequest(msgspec.Struct, frozen=True, tag="time_out"):
    """End a child's task that is past its hard time limit; answered by `RequestDone` or `Refused`."""

    pid: int


class InterruptTaskRequest(msgspec.Struct, frozen=True, tag="interrupt"):
    """Raise TaskMemoryLimitExceeded in a child's task; answered by `RequestDone` or `Refused`."""

    pid: int
    task_id: str
    reason: str


class FailTaskRequest(msgspec.Struct, frozen=True, tag="fail_task"):
    """Fail a child's task with TaskMemoryLimitExceeded and end the child; answered in the same way."""

    pid: int
    task_id: str
    reason: str


class TraceRequest(msgspec.Struct, frozen=True, tag="trace"):
    """Have one child trace the allocations of a task's next runs, and report them to a unix socket.

    Answered by `TracingChild` or `Refused`. The first `warm_up` runs do not count.
    """

    task: str
    runs: int
    warm_up: int
    address: str


class ChildStat(msgspec.Struct, frozen=True):
    """One pool child, as the worker's main process knows it."""

    pid: int
    tasks_done: int
    task_id: str | None
    task_name: str | None


class Departure(msgspec.Struct, frozen=True):
    """A child that was told to leave, and why: max_tasks, max_memory, asked (by `RetireRequest`) or shrink.

    Or task_memory, where it was ended with a task (by `FailTaskRequest`).
    """

    pid: int
    reason: str


class QueueTally(msgspec.Struct, frozen=True):
    """Histogram of the running times of one queue's tasks, by SECONDS_BOUNDS, and their sum."""

    counts: list[int]
    seconds: float


class TaskTally(msgspec.Struct, frozen=True, kw_only=True):
    """Results of a worker's tasks since `since`; queues by routing key, "" for all others."""

    since: float
    succeeded: int
    failed: int
    retried: int
    queues: dict[str, QueueTally]


class WorkerStat(msgspec.Struct, frozen=True, kw_only=True, tag="worker"):
    """The state of a worker's main process, its limits and its children at the time `sent`."""

    version: int = LINK_VERSION
    pool: str
    pid: int
    node: str
    concurrency: int
    max_tasks_per_child: int | None
    retires: bool  # Whether it can retire single children and change its limits
    lack: str  # Why not; empty where it can
    children: list[ChildStat]
    departures: list[Departure]
    sent: float
    generation: str = ""  # The id of its lease; empty where it keeps none
    reclaimed: int = 0  # How many messages it has given back for dead workers
    parked: int = 0  # How many tasks are parked, by any worker
    holding: bool | None = None  # Whether it is paused; None where it cannot be
    consuming: bool = False  # Whether it takes tasks from all of its queues
    consumes: list[str] = []  # The queues it takes tasks from, without those that an operator cancelled
    received: int = 0  # How many messages it has received since its start
    has_room: bool = False  # Whether it could take another task
    overdue: dict[int, float] = {}  # For how many seconds a child's task is past its hard time limit, by pid
    tasks: TaskTally | None = None  # Results of its tasks; None where it does not see them


class TracingChild(msgspec.Struct, frozen=True, tag="canary"):
    """The child that will trace."""

    pid: int


class RequestDone(msgspec.Struct, frozen=True, tag="done"):
    """The request was carried out."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The request was not carried out, and why."""

    reason: str


Request = (
    StatRequest
    | RetireRequest
    | SetMaxTasksRequest
    | SetConcurrencyRequest
    | PauseRequest
    | ReclaimRequest
    | DeathReport
    | TimeLimitRequest
    | InterruptTaskRequest
    | FailTaskRequest
    | TraceRequest
)
Reply = WorkerStat | TracingChild | RequestDone | Refused

Report = ChildReport | WorkerHeartbeat

encode_message: Callable[[Request | Reply | Report], bytes] = msgspec.json.Encoder().encode
# All raise msgspec.DecodeError for anything else.
decode_request: Callable[[bytes], Request] = msgspec.json.Decoder(Request).decode
decode_reply: Callable[[bytes], Reply] = msgspec.json.Decoder(Reply).decode
decode_report: Callable[[bytes], Report] = msgspec.json.Decoder(Report).decode


def ready_file(runtime_dir: Path, slot: str) -> Path:
    """Return where the main process of a worker writes its pid and its lease's id once it takes tasks."""
    return runtime_dir / f"ready-{slot}"


def remembered_folder(runtime_dir: Path) -> Path:
    """Return where workers keep, in a folder for each pool, what their successors are to know."""
    return runtime_dir / "remembered"


def now() -> float:
    """Return the seconds of CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def governor_socket(runtime_dir: Path) -> Path:
    """Return where the governor receives the datagrams."""
    return runtime_dir / "governor.sock"


def worker_socket(runtime_dir: Path, slot: str) -> Path:
    """Return where the main process of the worker in `slot` (a pool's name, or its spare's) answers."""
    return runtime_dir / f"worker-{slot}.sock"
