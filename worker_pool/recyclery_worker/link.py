"""The messages between worker and governor, one JSON object in each packet.

A pool child sends `ChildReport` datagrams to `governor.sock`, a main process its `Pulse`. The governor asks a
worker's main process on its `worker-POOL.sock` (SOCK_SEQPACKET: one request, one reply). Times are seconds of
CLOCK_BOOTTIME, the clock of /proc/PID/stat's starttime, so that a process can be dated against a task.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Literal

import msgspec

VERSION = 1
MAX_PACKET_BYTES = 128 * 1024
# After so many deaths of its process a task is parked, unless the pool's settings say otherwise.
DEFAULT_MAX_DEATHS = 3
# The governor's word to a child to collect ended browsers. Ignored by default: a child whose code took the
# signal for something else comes to no harm.
COLLECT_SIGNAL = signal.SIGURG
# By which running times are sorted: the last place is for what took longer than all of them.
SECONDS_BOUNDS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


class ChildReport(msgspec.Struct, frozen=True, kw_only=True, tag="child"):
    """The whole state of one pool child, sent as a task starts or ends: the next makes good a lost one."""

    version: int = VERSION
    pool: str
    pid: int
    start_ticks: int
    tasks_done: int
    task_id: str | None
    task_name: str | None
    first_task_started: float
    last_task_ended: float | None
    sent: float
    idle_bytes: int = 0
    """Anonymous memory of the child itself as its last task ended, or its first one began; 0: not known."""
    idle_shared_bytes: int = 0
    """What the child had mapped of shared memory then."""
    ended: dict[str, int] = {}
    """The names of the tasks that ended since the report before, and how many of each."""
    kept: list[int] = []
    """Pids of the chromedrivers whose browsers the child keeps for its next tasks."""
    remote: list[str] = []
    """Ids of the sessions that it has open on the Selenium Grid at SELENIUM_REMOTE_URL."""
    tracing: Literal["", "on", "over"] = ""
    """Whether it traces allocations, or did: then it is to leave."""


class Pulse(msgspec.Struct, frozen=True, kw_only=True, tag="pulse"):
    """A main process's sign of life, given by a thread of it every other second."""

    version: int = VERSION
    pool: str
    pid: int
    sent: float
    broker_answers: bool | None = None
    """None where the broker is not asked."""
    waiting: dict[str, int] | None = None
    """Messages by queue; None where that is not known."""
    stopping: bool = False
    """Whether it was told to end."""


class Stat(msgspec.Struct, frozen=True, tag="stat"):
    """Ask a worker for its children and limits; answered by `WorkerStat`."""


class Retire(msgspec.Struct, frozen=True, tag="retire"):
    """Ask that one child leaves after its current task, at once when idle; answered by `Done` or `Refused`."""

    pid: int


class SetMaxTasks(msgspec.Struct, frozen=True, tag="set_max_tasks"):
    """Set max-tasks-per-child for children present and future; answered by `Done` or `Refused`."""

    max_tasks: int


class SetConcurrency(msgspec.Struct, frozen=True, tag="set_concurrency"):
    """Set how many tasks run at a time; answered by `Done` or `Refused`."""

    concurrency: int


class Hold(msgspec.Struct, frozen=True, tag="hold"):
    """Ask a worker to take no tasks for so long, 0 to take them again; answered by `Done` or `Refused`."""

    seconds: float


class Reclaim(msgspec.Struct, frozen=True, tag="reclaim"):
    """Ask for the messages of a generation whose processes are all dead to be given back soon.

    Answered by `Done` or `Refused`.
    """

    generation: str


class Fell(msgspec.Struct, frozen=True, tag="fell"):
    """Tell what was seen of a pool child that is gone with a task in hand, any worker's; answered by `Done`."""

    pid: int
    task_id: str
    tree_bytes: int
    how: str = ""
    """Why it is gone, where that is known."""


class TimeOut(msgspec.Struct, frozen=True, tag="time_out"):
    """Ask that a child's task which is past its hard time limit be ended; answered by `Done` or `Refused`."""

    pid: int


class Trace(msgspec.Struct, frozen=True, tag="trace"):
    """Ask that one child traces the allocations of a task's next runs, and tells of them at a unix socket.

    Answered by `Canary` or `Refused`. The first runs, `warm_up`, are not judged.
    """

    task: str
    runs: int
    warm_up: int
    address: str


class ChildStat(msgspec.Struct, frozen=True):
    """One pool child as the worker's main process sees it."""

    pid: int
    tasks_done: int
    task_id: str | None
    task_name: str | None


class Departure(msgspec.Struct, frozen=True):
    """A child that was told to leave: max_tasks, asked (by `Retire`) or shrink."""

    pid: int
    reason: str


class QueueTally(msgspec.Struct, frozen=True):
    """How many tasks of one queue ran how long, by SECONDS_BOUNDS, and all their seconds together."""

    counts: list[int]
    seconds: float


class TaskTally(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a worker's tasks since it began to count; queues by routing key, "" for all others."""

    since: float
    succeeded: int
    failed: int
    retried: int
    queues: dict[str, QueueTally]


class WorkerStat(msgspec.Struct, frozen=True, kw_only=True, tag="worker"):
    """A worker's main process, its limits and its children at the time `sent`."""

    version: int = VERSION
    pool: str
    pid: int
    node: str
    concurrency: int
    max_tasks_per_child: int | None
    retires: bool
    """Whether it can let single children go and change its limits; `lack` says why not, else it is empty."""
    lack: str
    children: list[ChildStat]
    departures: list[Departure]
    sent: float
    generation: str = ""
    """Under which its unacknowledged messages are kept; empty where its broker gives them back by itself."""
    reclaimed: int = 0
    """Messages that it has given back for dead workers."""
    parked: int = 0
    """Tasks that are parked, whoever parked them."""
    holding: bool | None = None
    """Whether it takes no tasks because it was told so; None where it cannot be told so."""
    consuming: bool = False
    """Whether it takes tasks from all of its queues."""
    consumes: list[str] = []
    """The queues it takes tasks from: not those that an operator cancelled."""
    received: int = 0
    """Messages that it has taken since its start."""
    has_room: bool = False
    """Whether it could take one more."""
    overdue: dict[int, float] = {}
    """For how many seconds children's tasks have been past their hard time limits, by the children's pids."""
    tasks: TaskTally | None = None
    """What came of its tasks; None where it does not see that."""


class Canary(msgspec.Struct, frozen=True, tag="canary"):
    """The child that will trace."""

    pid: int


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The request was carried out."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The request was not carried out, and why."""

    reason: str


Request = Stat | Retire | SetMaxTasks | SetConcurrency | Hold | Reclaim | Fell | TimeOut | Trace
Reply = WorkerStat | Canary | Done | Refused

_encoder = msgspec.json.Encoder()
_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_replies: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)
Report = ChildReport | Pulse
_reports: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)


def encode(message: Request | Reply | Report) -> bytes:
    """Return the message as one packet."""
    return _encoder.encode(message)


def decode_request(packet: bytes) -> Request:
    """Return the request in a packet; raises msgspec.DecodeError for anything else."""
    return _requests.decode(packet)


def decode_reply(packet: bytes) -> Reply:
    """Return the reply in a packet; raises msgspec.DecodeError for anything else."""
    return _replies.decode(packet)


def decode_report(packet: bytes) -> Report:
    """Return what a datagram tells; raises msgspec.DecodeError for anything else."""
    return _reports.decode(packet)


def now() -> float:
    """Seconds of CLOCK_BOOTTIME."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def governor_socket(runtime_dir: Path) -> Path:
    """Where the governor reads the children's datagrams."""
    return runtime_dir / "governor.sock"


def worker_socket(runtime_dir: Path, slot: str) -> Path:
    """Where the main process of the worker in `slot` (a pool's name, or its spare's) answers."""
    return runtime_dir / f"worker-{slot}.sock"
