"""What the doctor says of what it saw."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import BUILT_IN, SINGLE, Settings
from recyclery.doctor.application import AppFacts, judge_app
from recyclery.doctor.broker import BrokerFacts, judge_broker, judge_leases
from recyclery.doctor.browsers import BrowserFacts, judge_browser
from recyclery.doctor.container import MIB, ContainerFacts, judge_container
from recyclery.doctor.findings import Finding, Level
from recyclery.doctor.supervision import (
    HIGH_NOT_PRIORITISED,
    KEEPS_RESTARTING,
    TASKS_NOT_PROCESSED,
    SupervisionFacts,
    judge_supervision,
)
from recyclery_worker.delivery.reclaim import OrphanedLease

SETTINGS = Settings(app="app", pools=BUILT_IN, runtime_dir=Path("/run/recyclery"))
APP = AppFacts(
    celery_version="5.7.0",
    missing_hooks=(),
    tasks=2,
    unlimited_tasks=(),
    longest_task="scrape",
    longest_seconds=20,
    early_tasks=(),
    visibility_seconds=None,
    own_keys=(),
    queue_order="priority",
    imports_browser=True,
)
BROKER = BrokerFacts("redis://redis:6379/0", version="7.2.1", policy="noeviction", max_bytes=100, used_bytes=9)
CONTAINER = ContainerFacts(
    limit_bytes=1024 * MIB,
    source="cgroup v2 /sys/fs/cgroup",
    app_bytes=80 * MIB,
    shm_bytes=1024 * MIB,
    init=("/usr/bin/python", "/usr/bin/recyclery", "run"),
    drain_seconds=60,
)
POOL = {"state": PoolState.RUNNING, "recycles": {}}
STATUS = {"container": {"oom_kills": 0}, "pools": {"fast": POOL, "slow": POOL}}
SUPERVISION = SupervisionFacts(STATUS, "", {"high": 0, "low": 3}, {"low": ("slow@a",), "high": ("fast@a",)})


def worst(findings: Iterable[Finding]) -> list[tuple[str, Level]]:
    """Return what is not well, by name."""
    return [
        (finding.name, finding.level) for finding in findings if finding.level not in {Level.OK, Level.SKIPPED}
    ]


def test_all_is_well_where_nothing_is_wrong() -> None:
    findings = [
        *judge_app(APP, SETTINGS),
        *judge_broker(BROKER),
        *judge_browser(BrowserFacts(used=True, pair="chromium 156")),
        *judge_container(CONTAINER, SETTINGS, imports_browser=True),
        *judge_supervision(SUPERVISION, SETTINGS, APP.queue_order),
    ]
    assert worst(findings) == []
    assert len(findings) >= 14


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"missing_hooks": ("AsynPool.on_job_ready",)}, ("celery", Level.WARNING)),
        ({"unlimited_tasks": ("a", "b")}, ("time limits", Level.WARNING)),
        ({"longest_seconds": 60}, ("grace", Level.NOTE)),
        ({"early_tasks": ("mail",)}, ("acknowledgement", Level.NOTE)),
        ({"own_keys": ("unacked_key",)}, ("leases", Level.WARNING)),
        ({"visibility_seconds": 20}, ("visibility timeout", Level.FAILURE)),
    ],
)
def test_of_an_app(change: dict[str, object], expected: tuple[str, Level]) -> None:
    assert worst(judge_app(replace(APP, **change), SETTINGS)) == [expected]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"problem": "refused"}, ("broker", Level.FAILURE)),
        ({"version": "6.0.16"}, ("broker", Level.WARNING)),
        ({"policy": "allkeys-lru"}, ("eviction", Level.FAILURE)),
        ({"used_bytes": 90}, ("eviction", Level.WARNING)),
        ({"appends": False, "saves": False}, ("persistence", Level.WARNING)),
        ({"appends": False, "saves": None}, ("persistence", Level.WARNING)),
    ],
)
def test_of_a_broker(change: dict[str, object], expected: tuple[str, Level]) -> None:
    assert worst(judge_broker(replace(BROKER, **change))) == [expected]  # type: ignore[arg-type]


def test_a_broker_without_a_limit_evicts_nothing_whatever_its_policy() -> None:
    assert worst(judge_broker(replace(BROKER, max_bytes=0, policy="allkeys-lru"))) == []


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (BrowserFacts(used=True, mismatch="Chrome 156 and chromedriver 155"), Level.FAILURE),
        (BrowserFacts(used=True, missing="no Chrome"), Level.WARNING),
    ],
)
def test_of_a_browser(facts: BrowserFacts, expected: Level) -> None:
    assert worst(judge_browser(facts)) == [("browser", expected)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"limit_bytes": None}, ("memory", Level.WARNING)),
        ({"limit_bytes": 256 * MIB}, ("memory", Level.FAILURE)),
        ({"limit_bytes": 512 * MIB}, ("memory", Level.FAILURE)),
        ({"shm_bytes": 64 * MIB}, ("/dev/shm", Level.NOTE)),
        ({"init": ("/bin/sh", "-c", "recyclery run")}, ("PID 1", Level.FAILURE)),
        ({"init": ("/sbin/docker-init", "--", "x")}, ("PID 1", Level.NOTE)),
        ({"drain_seconds": None}, ("stop timeout", Level.NOTE)),
        ({"drain_seconds": 20}, ("stop timeout", Level.FAILURE)),
    ],
)
def test_of_a_container(change: dict[str, object], expected: tuple[str, Level]) -> None:
    facts = replace(CONTAINER, **change)  # type: ignore[arg-type]
    assert worst(judge_container(facts, SETTINGS, imports_browser=True)) == [expected]


def test_512_mib_are_enough_where_no_browser_is_used() -> None:
    facts = replace(CONTAINER, limit_bytes=512 * MIB)
    assert worst(judge_container(facts, SETTINGS, imports_browser=False)) == []


def test_tasks_that_wait_where_no_worker_takes_them_are_named_with_their_queue() -> None:
    facts = replace(SUPERVISION, consumers={"high": ("fast@a",)})
    (found,) = [one for one in judge_supervision(facts, SETTINGS, "priority") if one.level is Level.FAILURE]
    assert found.name == TASKS_NOT_PROCESSED
    assert found.text.startswith("3 wait in low")


@pytest.mark.parametrize(
    ("pool", "names"),
    [
        ({"state": PoolState.WAITING_FOR_BROKER, "recycles": {}}, [TASKS_NOT_PROCESSED]),
        ({"state": PoolState.BACKOFF, "recycles": {}}, [TASKS_NOT_PROCESSED, KEEPS_RESTARTING]),
        ({"state": PoolState.RUNNING, "recycles": {"preempt": 2}}, [KEEPS_RESTARTING]),
    ],
)
def test_a_pool_in_trouble(pool: dict[str, object], names: list[str]) -> None:
    facts = replace(SUPERVISION, status={**STATUS, "pools": {"fast": POOL, "slow": pool}})
    assert [name for name, _ in worst(judge_supervision(facts, SETTINGS, "priority"))] == names


def test_what_a_dead_worker_holds_is_told() -> None:
    held = OrphanedLease(generation="a", node="slow@a", pid=7, messages=2)
    assert worst(judge_leases([held])) == [("forgotten tasks", Level.WARNING)]
    assert worst(judge_leases([])) == []


def test_processes_killed_by_the_kernel_are_told() -> None:
    facts = replace(SUPERVISION, status={**STATUS, "container": {"oom_kills": 3}})
    assert worst(judge_supervision(facts, SETTINGS, "priority")) == [(KEEPS_RESTARTING, Level.WARNING)]


@pytest.mark.parametrize(
    ("settings", "order", "waiting", "expected"),
    [
        (SETTINGS, "round_robin", 0, Level.NOTE),
        (SETTINGS, "priority", 10, Level.WARNING),
        (Settings(app="app", pools=(SINGLE,), runtime_dir=Path("/run")), "priority", 0, Level.WARNING),
    ],
)
def test_urgent_tasks_that_wait_behind_others(
    settings: Settings, order: str, waiting: int, expected: Level
) -> None:
    facts = replace(SUPERVISION, depths={"high": waiting})
    assert worst(judge_supervision(facts, settings, order)) == [(HIGH_NOT_PRIORITISED, expected)]
