"""The settings as frozen values, with the built-in pools of the deployment Recyclery serves."""

from __future__ import annotations

from pathlib import Path

import msgspec

MIB = 1 << 20


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """One Celery worker: its queues, its children, and what is done about what they leave behind.

    `implementation` is Celery's word for how tasks run (`celery worker -P`).
    """

    name: str
    queues: tuple[str, ...]
    concurrency: int
    """Tasks at a time; where `concurrency_most` is higher, how many to begin with and to go down to."""
    max_tasks_per_child: int
    implementation: str = "prefork"
    celery_options: tuple[str, ...] = ()
    concurrency_most: int | None = None
    reap_leftover_browsers: bool = True
    max_task_deaths: int = 3
    """After so many deaths of its process a task is parked; 0: never."""

    @property
    def least(self) -> int:
        """The lowest concurrency the governor may set."""
        return self.concurrency

    @property
    def most(self) -> int:
        """The highest concurrency the governor may set."""
        return max(self.concurrency, self.concurrency_most or 0)

    @property
    def forks(self) -> bool:
        """Whether tasks run in child processes, not in the worker's main process."""
        return self.implementation == "prefork"


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The limit (None: the cgroup's, else the machine's), its levels, and the risk taken."""

    limit_bytes: int | None = None
    retire_percent: int = 80
    high_percent: int = 90
    hard_percent: int = 95
    risk_percent: float = 1.0


class Browsers(msgspec.Struct, frozen=True, kw_only=True):
    """When a browser is a runaway: its task has been silent so long (0: never), and something else is wrong."""

    silent_seconds: float = 300.0
    max_percent: int = 75
    max_age_seconds: float = 21600.0


class Alerts(msgspec.Struct, frozen=True, kw_only=True):
    """What is told by webhook, and in whose form; 0 turns a thing off. Times in `task_seconds` are by queue."""

    format: str = "json"
    queue_depth: int = 10
    success_percent: int = 95
    task_seconds: dict[str, float] = msgspec.field(default_factory=lambda: {"high": 10.0, "default": 300.0})
    memory_percent: int = 92
    restarts: int = 3
    lasting_seconds: float = 60.0
    window_seconds: float = 600.0


class History(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the past is kept: the file's size, and how old each kind of record may get."""

    max_bytes: int = 100 * MIB
    seconds_hours: float = 24.0
    minutes_days: float = 14.0
    totals_days: float = 90.0


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where HTTP is served: an IP address or `localhost` ("": every interface), and how that was said."""

    host: str
    port: int
    origin: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `recyclery run` goes by."""

    app: str
    pools: tuple[Pool, ...]
    runtime_dir: Path
    state_dir: Path = Path("/var/lib/recyclery")
    memory: Memory = Memory()
    browsers: Browsers = Browsers()
    alerts: Alerts = Alerts()
    history: History = History()
    log_level: str = "info"
    grace_seconds: float = 25.0
    log_format: str = "text"
    max_deaths: int = 5
    death_window_seconds: float = 300.0
    watchdog_seconds: float = 30.0
    http: Address | None = None
    drain_seconds: float = 600.0


FAST = Pool(name="fast", queues=("high", "default"), concurrency=3, max_tasks_per_child=100)
SLOW = Pool(name="slow", queues=("low",), concurrency=1, max_tasks_per_child=10)
SINGLE = Pool(name="worker", queues=("high", "default", "low"), concurrency=2, max_tasks_per_child=10)
BUILT_IN = (FAST, SLOW)
