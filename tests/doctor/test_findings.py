"""The findings of the doctor for given facts."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from recyclery.common.pool_state import PoolState
from recyclery.common.units import MIB
from recyclery.config.settings import BUILT_IN, SINGLE, Settings
from recyclery.doctor.application import AppFacts, app_findings
from recyclery.doctor.broker import BrokerFacts, broker_findings, connection_findings, lease_findings
from recyclery.doctor.container import BrowserFacts, ContainerFacts, browser_findings, container_findings
from recyclery.doctor.findings import Finding, Severity
from recyclery.doctor.supervision import (
    HIGH_NOT_PRIORITISED,
    KEEPS_RESTARTING,
    TASKS_NOT_PROCESSED,
    SupervisionFacts,
    supervision_findings,
)
from recyclery.observe.snapshot import Supply
from recyclery.observe.supplies import PROCESSES
from recyclery_worker.delivery.reclaim import OrphanedLease
from support.statuses import pool, status

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
SUPERVISION = SupervisionFacts(status(), "", {"high": 0, "low": 3}, {"low": ("slow@a",), "high": ("fast@a",)})


def worst(findings: Iterable[Finding]) -> list[tuple[str, Severity]]:
    """Return the findings that are neither ok nor skipped, by name."""
    return [
        (finding.name, finding.level)
        for finding in findings
        if finding.level not in {Severity.OK, Severity.SKIPPED}
    ]


def test_all_is_well_where_nothing_is_wrong() -> None:
    findings = [
        *app_findings(APP, SETTINGS),
        *broker_findings(BROKER),
        *browser_findings(BrowserFacts(used=True, pair="chromium 156")),
        *container_findings(CONTAINER, SETTINGS, imports_browser=True),
        *supervision_findings(SUPERVISION, SETTINGS, APP.queue_order),
    ]
    assert worst(findings) == []
    assert len(findings) >= 14


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"missing_hooks": ("AsynPool.on_job_ready",)}, ("celery", Severity.WARNING)),
        ({"unlimited_tasks": ("a", "b")}, ("time limits", Severity.WARNING)),
        ({"longest_seconds": 60}, ("grace", Severity.NOTE)),
        ({"early_tasks": ("mail",)}, ("acknowledgement", Severity.NOTE)),
        ({"own_keys": ("unacked_key",)}, ("leases", Severity.WARNING)),
        ({"visibility_seconds": 20}, ("visibility timeout", Severity.FAILURE)),
    ],
)
def test_a_weakness_of_the_app_is_found(change: dict[str, object], expected: tuple[str, Severity]) -> None:
    assert worst(app_findings(replace(APP, **change), SETTINGS)) == [expected]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"problem": "refused"}, ("broker", Severity.FAILURE)),
        ({"version": "6.0.16"}, ("broker", Severity.WARNING)),
        ({"policy": "allkeys-lru"}, ("eviction", Severity.FAILURE)),
        ({"used_bytes": 90}, ("eviction", Severity.WARNING)),
        ({"appends": False, "saves": False}, ("persistence", Severity.WARNING)),
        ({"appends": False, "saves": None}, ("persistence", Severity.WARNING)),
    ],
)
def test_a_weakness_of_the_broker_is_found(change: dict[str, object], expected: tuple[str, Severity]) -> None:
    assert worst(broker_findings(replace(BROKER, **change))) == [expected]  # type: ignore[arg-type]


def test_a_broker_without_a_limit_evicts_nothing_whatever_its_policy() -> None:
    assert worst(broker_findings(replace(BROKER, max_bytes=0, policy="allkeys-lru"))) == []


def test_of_a_broker_list_the_members_before_the_one_that_answers_are_a_warning() -> None:
    facts = replace(BROKER, away=("redis://a/ does not answer: refused",))
    assert worst(broker_findings(facts)) == [("broker", Severity.WARNING)]


@pytest.mark.parametrize(
    ("limit", "taken", "expected"),
    [
        (None, 0, []),
        (20, 0, [("connections", Severity.FAILURE)]),
        (30, 0, [("connections", Severity.WARNING)]),
        (40, 0, []),
        (40, 33, [("connections", Severity.WARNING)]),
    ],
)
def test_a_redis_that_has_too_few_connections_for_the_pools_is_found(
    limit: int | None, taken: int, expected: list[tuple[str, Severity]]
) -> None:
    facts = replace(BROKER, max_connections=limit, connections=taken)
    assert worst(connection_findings(facts, BUILT_IN)) == expected


def test_of_another_broker_nothing_is_said_that_is_true_of_redis_alone() -> None:
    facts = replace(APP, broker_kind="amqp", visibility_seconds=10, own_keys=("unacked_key",), queue_order="")
    assert worst(app_findings(facts, SETTINGS)) == []
    assert "visibility timeout" not in {finding.name for finding in app_findings(facts, SETTINGS)}
    found = {one.name: one for one in supervision_findings(SUPERVISION, SETTINGS, facts.queue_order)}
    assert found[HIGH_NOT_PRIORITISED].level is Severity.SKIPPED


def test_what_is_true_of_rabbitmq_alone_is_said() -> None:
    facts = replace(APP, broker_kind="amqp", longest_seconds=3600, not_parked="deaths are not counted")
    found = {one.name: one.level for one in app_findings(facts, SETTINGS)}
    assert found["consumer timeout"] is Severity.WARNING
    assert found["deaths"] is Severity.NOTE
    rabbitmq = BrokerFacts("amqp://rabbitmq:5672//", kind="amqp", version="3.13.0")
    assert [(one.level, one.text) for one in broker_findings(rabbitmq)] == [
        (Severity.OK, "RabbitMQ 3.13.0 at amqp://rabbitmq:5672// answers")
    ]
    assert worst(broker_findings(replace(rabbitmq, problem="refused"))) == [("broker", Severity.FAILURE)]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (BrowserFacts(used=True, mismatch="Chrome 156 and chromedriver 155"), Severity.FAILURE),
        (BrowserFacts(used=True, missing="no Chrome"), Severity.WARNING),
    ],
)
def test_a_missing_or_mismatched_browser_is_found(facts: BrowserFacts, expected: Severity) -> None:
    assert worst(browser_findings(facts)) == [("browser", expected)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"limit_bytes": None}, ("memory", Severity.WARNING)),
        ({"limit_bytes": 256 * MIB}, ("memory", Severity.FAILURE)),
        ({"limit_bytes": 512 * MIB}, ("memory", Severity.FAILURE)),
        ({"shm_bytes": 64 * MIB}, ("/dev/shm", Severity.NOTE)),
        ({"init": ("/bin/sh", "-c", "recyclery run")}, ("PID 1", Severity.FAILURE)),
        ({"init": ("/sbin/docker-init", "--", "x")}, ("PID 1", Severity.NOTE)),
        ({"drain_seconds": None}, ("stop timeout", Severity.NOTE)),
        ({"drain_seconds": 20}, ("stop timeout", Severity.FAILURE)),
    ],
)
def test_a_weakness_of_the_container_is_found(
    change: dict[str, object], expected: tuple[str, Severity]
) -> None:
    facts = replace(CONTAINER, **change)  # type: ignore[arg-type]
    assert worst(container_findings(facts, SETTINGS, imports_browser=True)) == [expected]


def test_512_mib_are_enough_where_no_browser_is_used() -> None:
    facts = replace(CONTAINER, limit_bytes=512 * MIB)
    assert worst(container_findings(facts, SETTINGS, imports_browser=False)) == []


def test_tasks_that_wait_where_no_worker_takes_them_are_named_with_their_queue() -> None:
    facts = replace(SUPERVISION, consumers={"high": ("fast@a",)})
    (found,) = [
        one for one in supervision_findings(facts, SETTINGS, "priority") if one.level is Severity.FAILURE
    ]
    assert found.name == TASKS_NOT_PROCESSED
    assert found.text.startswith("3 wait in low")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"state": PoolState.WAITING_FOR_BROKER}, [TASKS_NOT_PROCESSED]),
        ({"state": PoolState.BACKOFF}, [TASKS_NOT_PROCESSED, KEEPS_RESTARTING]),
        ({"recycles": {"preempt": 2}}, [KEEPS_RESTARTING]),
    ],
)
def test_a_pool_in_trouble_is_found(change: dict[str, object], names: list[str]) -> None:
    facts = replace(SUPERVISION, status=status(pools={"fast": pool("fast"), "slow": pool("slow", **change)}))
    assert [name for name, _ in worst(supervision_findings(facts, SETTINGS, "priority"))] == names


def test_what_a_dead_worker_holds_is_found() -> None:
    held = OrphanedLease(generation="a", node="slow@a", pid=7, messages=2)
    assert worst(lease_findings([held])) == [("forgotten tasks", Severity.WARNING)]
    assert worst(lease_findings([])) == []


def test_processes_killed_by_the_kernel_are_found() -> None:
    facts = replace(SUPERVISION, status=status(oom_kills=3))
    assert worst(supervision_findings(facts, SETTINGS, "priority")) == [(KEEPS_RESTARTING, Severity.WARNING)]


@pytest.mark.parametrize(
    ("settings", "order", "waiting", "expected"),
    [
        (SETTINGS, "round_robin", 0, Severity.NOTE),
        (SETTINGS, "priority", 10, Severity.WARNING),
        (Settings(app="app", pools=(SINGLE,), runtime_dir=Path("/run")), "priority", 0, Severity.WARNING),
    ],
)
def test_urgent_tasks_that_wait_behind_others(
    settings: Settings, order: str, waiting: int, expected: Severity
) -> None:
    facts = replace(SUPERVISION, depths={"high": waiting})
    assert worst(supervision_findings(facts, settings, order)) == [(HIGH_NOT_PRIORITISED, expected)]


@pytest.mark.parametrize(
    ("options", "max_memory_kib", "warns"),
    [
        ((), None, False),
        ((), 200_000, True),
        ((), 400_000, False),
        (("--max-memory-per-child=200000",), None, True),
        (("-E", "--max-memory-per-child", "400000"), 200_000, False),
    ],
)
def test_a_max_memory_per_child_that_each_child_passes_is_warned_of(
    options: tuple[str, ...], max_memory_kib: int | None, warns: bool
) -> None:
    settings = structs.replace(SETTINGS, pools=(structs.replace(SINGLE, celery_options=options),))
    facts = replace(APP, max_memory_kib=max_memory_kib, imported_kib=300_000)
    named = [name for name, _ in worst(app_findings(facts, settings)) if name == "max-memory-per-child"]
    assert bool(named) == warns


@pytest.mark.parametrize(
    ("supply", "level"),
    [
        (Supply("/tmp", 52 * MIB, 64 * MIB, in_bytes=True), Severity.WARNING),  # a name
        (Supply("inodes of /tmp", 95, 100), Severity.FAILURE),
        (Supply(PROCESSES, 10, 200), Severity.WARNING),
        (Supply(PROCESSES, 10, 4096), None),
        (Supply("/tmp", 10, 100), None),  # as above
    ],
    ids=["scarce", "nearly used", "no room for browsers", "room", "enough"],
)
def test_what_runs_out_beside_memory_is_told_before_it_does(supply: Supply, level: Severity | None) -> None:
    found = worst(container_findings(replace(CONTAINER, supplies=(supply,)), SETTINGS, imports_browser=True))
    assert [each for name, each in found if name == supply.name] == ([level] if level else [])
