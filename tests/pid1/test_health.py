"""What `recyclery health` makes of the governor's file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from recyclery.common.pool_state import PoolState
from recyclery.health.heartbeat import STALE_SECONDS, find_fault
from recyclery.observe.snapshot import Vitals
from support.snapshots import slow_view


def written(folder: Path, at: float, **pools: str) -> Path:
    """Write a heartbeat file."""
    path = folder / "heartbeat.json"
    path.write_text(json.dumps({"at": at, "pools": pools}))
    return path


def test_pools_that_run_under_a_governor_that_lives_are_healthy(tmp_path: Path) -> None:
    assert find_fault(written(tmp_path, 100.0, fast="running", slow="draining"), 101.0) is None
    assert find_fault(written(tmp_path, 100.0, slow="waiting for broker"), 101.0) is None


@pytest.mark.parametrize("state", ["not answering", "starting", "backoff", "fatal", "not known yet", "exited"])
def test_a_pool_in_any_other_state_is_named(tmp_path: Path, state: str) -> None:
    assert find_fault(written(tmp_path, 100.0, fast="running", slow=state), 101.0) == f"slow is {state}"


def test_a_worker_that_runs_but_has_not_answered_yet_is_starting() -> None:
    answered = Vitals(pid=1, answered=1.0)
    assert slow_view(state=PoolState.RUNNING, pid=1).reported_state == "starting"
    assert slow_view(state=PoolState.RUNNING, pid=1, vitals=answered).reported_state == "running"
    assert slow_view(state=PoolState.NOT_ANSWERING, pid=1).reported_state == "not answering"


def test_a_governor_that_was_silent_for_long_is_a_fault(tmp_path: Path) -> None:
    path = written(tmp_path, 100.0, slow="running")
    assert find_fault(path, 100.0 + STALE_SECONDS) is None
    assert "has not been heard of for 11 s" in str(find_fault(path, 100.0 + STALE_SECONDS + 1))


def test_a_file_from_before_the_machine_started_is_a_fault(tmp_path: Path) -> None:
    assert "since the machine started" in str(find_fault(written(tmp_path, 5000.0, slow="running"), 20.0))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"at": "x", "pools": {}}', '{"at": 1}', "null"])
def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path, content: str) -> None:
    path = tmp_path / "heartbeat.json"
    path.write_text(content)
    assert "cannot be read" in str(find_fault(path, 1.0))


def test_no_file_is_a_fault_that_says_what_to_look_for(tmp_path: Path) -> None:
    assert "RECYCLERY_RUNTIME_DIR" in str(find_fault(tmp_path / "heartbeat.json", 1.0))


def test_the_health_check_imports_neither_celery_nor_the_supervisor() -> None:
    script = "import sys, recyclery.health.heartbeat; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    heavy = {"celery", "kombu", "redis", "msgspec", "psutil", "supervisor", "asyncio", "argparse"}
    assert heavy & set(loaded.split()) == set()
