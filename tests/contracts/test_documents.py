"""Documents for programs: `--json` output of commands, the API of the web page, alert messages."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from contracts import product
from contracts.frozen import assert_frozen, frozen, shape
from support.pages import Served, record_hours, serving_page
from support.supervised import SUPPORT
from support.waiting import wait_for

NOBODY = "redis://127.0.0.1:1/0"
STATUS_MAPS = ("pools", "pools.*.recycles")
API_MAPS = ("status.pools", "status.pools.*.recycles", "timeline.pools")
ROUTES = """
[pools.one]
queues = ["celery"]
[pools.none]
queues = ["none"]
"""


def print_json(*arguments: str, redis_url: str = NOBODY) -> Any:
    """Run a command with `--json` for the sample app; return what it prints."""
    ours = ("CELERY_", "RECYCLERY_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        [sys.executable, "-m", "recyclery", *arguments, "--json"],
        env={**clean, "CELERY_APP": "sample_app", "PYTHONPATH": str(SUPPORT), "REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def hours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history of two hours with known leaks and a pool that appears at the end."""
    history = record_hours(tmp_path_factory.mktemp("hours") / "history.db", 2)
    product.record_late_pool(history)
    return history


@pytest.fixture(scope="module")
def page(hours: Path) -> Iterator[Served]:
    """The web page on that history."""
    with serving_page(hours) as served:
        yield served


def test_the_status_document_has_the_frozen_keys_and_types() -> None:
    assert_frozen("documents", shape(*product.status_documents(), maps=STATUS_MAPS), "status: ")


def test_the_leaks_document_has_the_frozen_keys_and_types(hours: Path, tmp_path: Path) -> None:
    few = tmp_path / "history.db"
    product.record_runs(few, 1, kinds=())
    reports = [print_json("leaks", "--history", str(path)) for path in (hours, few)]
    assert_frozen("documents", shape(*reports), "leaks: ")


def test_a_comparison_of_leaks_consists_of_two_leaks_documents(hours: Path) -> None:
    compared = print_json("leaks", "--compare", "2h..1h", "--history", str(hours))
    assert compared.keys() == {"before", "after"}
    assert {line.partition(":")[0] for line in shape(compared["before"])} <= paths("leaks: ")


def test_the_trace_document_has_the_frozen_keys_and_types() -> None:
    assert_frozen("documents", shape(*product.trace_documents()), "leaks --trace: ")


def test_the_doctor_document_has_the_frozen_keys_and_types() -> None:
    document = print_json("doctor")
    assert_frozen("documents", shape(document), "doctor: ")
    assert {finding["level"] for finding in document["findings"]} <= {
        *["ok", "note", "warning", "failure", "skipped"]
    }


def test_the_routes_document_has_the_frozen_keys_and_types(tmp_path: Path) -> None:
    config = tmp_path / "recyclery.toml"
    config.write_text(ROUTES)
    document = print_json("routes", "--config", str(config))
    assert_frozen("documents", shape(document, maps=("tasks", "pools")), "routes: ")


def test_the_reclaim_document_has_the_frozen_keys_and_types(fresh_redis: str) -> None:
    product.forget_worker_and_tuning(fresh_redis)
    document = print_json("reclaim", "--list", redis_url=fresh_redis)
    assert_frozen("documents", shape(document), "reclaim: ")


@pytest.mark.parametrize("action", ["retry", "drop"])
def test_retrying_or_dropping_parked_tasks_prints_their_ids(fresh_redis: str, action: str) -> None:
    assert print_json("parked", action, "--all", redis_url=fresh_redis) == {action: []}


@pytest.mark.parametrize("asked", ["status", "history?span=1h", "leaks"])
def test_an_api_answer_of_the_web_page_has_the_frozen_keys_and_types(page: Served, asked: str) -> None:
    def ask() -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{page.port}/api/{asked}", timeout=60) as answer:
                return json.load(answer)
        except URLError:
            return None

    found = shape(wait_for(ask, "the page answers"), maps=API_MAPS)
    # Documents within this one are frozen as such.
    within = {"status.": "status: ", "report.": "leaks: "}
    for start, part in within.items():
        inner = {line.removeprefix(start).partition(":")[0] for line in found if line.startswith(start)}
        assert inner <= paths(part)
    own = [line for line in found if not line.startswith(tuple(within))]
    assert_frozen("documents", own, f"/api/{asked.partition('?')[0]}: ")


@pytest.mark.parametrize("form", ["json", "slack", "pagerduty"])
def test_an_alert_message_has_the_frozen_keys_and_types(form: str) -> None:
    assert_frozen("documents", shape(*product.alert_messages(form)), f"alert as {form}: ")


def paths(part: str) -> set[str]:
    """Return the frozen paths of a document, without their types."""
    return {line.removeprefix(part).partition(":")[0] for line in frozen("documents", part)}
