"""The commands and the environment of the two managers."""

from pathlib import Path

import pytest

from recyclery_demo.managers import base_environment, find_manager, worker_environment
from recyclery_demo.requirements import Requirements

REQUIREMENTS = Requirements(Path("/office"), "redis-server", Path("/bin/chrome"), Path("/bin/chromedriver"))
PLACES = ("redis://127.0.0.1:1/0", "http://127.0.0.1:2", Path("/tmp/rd-x"))


def test_stock_celery_runs_at_the_guides_settings() -> None:
    _, _, script = find_manager("celery").command
    assert "-n fast@%h -Q high,default -c 3 --max-tasks-per-child 100" in script
    assert "-n slow@%h -Q low -c 1 --max-tasks-per-child 10" in script


def test_settings_of_our_own_shell_do_not_reach_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CELERY_QUEUES", "CELERY_BROKER_URL", "RECYCLERY_HTTP", "PORT"):
        monkeypatch.setenv(name, "ours")
    environment = worker_environment(base_environment(REQUIREMENTS), REQUIREMENTS, *PLACES, budget_bytes=None)
    assert "ours" not in environment.values()


def test_the_example_is_importable_by_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    assert base_environment(REQUIREMENTS)["PYTHONPATH"] == "/office:/mine"


def test_without_a_cgroup_the_supervisor_is_told_its_budget() -> None:
    environment = worker_environment({}, REQUIREMENTS, *PLACES, budget_bytes=1 << 30)
    assert environment["RECYCLERY_MEMORY_LIMIT"] == "1073741824"


def test_with_a_cgroup_the_supervisor_finds_the_limit_itself() -> None:
    assert "RECYCLERY_MEMORY_LIMIT" not in worker_environment({}, REQUIREMENTS, *PLACES, budget_bytes=None)
