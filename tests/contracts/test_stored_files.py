"""Files that outlive a process: old ones are still read, and unknown fields are ignored."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts import product

STORED = Path(__file__).parent / "stored"
LATER = {"from_a_later_version": 1}


def stored(name: str) -> Any:
    """Return a file that an earlier version wrote."""
    return json.loads((STORED / name).read_text(encoding="utf-8"))


def put(document: Any, folder: Path, name: str) -> Path:
    """Write a document into a folder."""
    path = folder / name
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "rewrite"), [("models.json", product.rewrite_models), ("settings.json", product.rewrite_settings)]
)
def test_a_stored_file_is_read_and_written_back_unchanged(
    tmp_path: Path, name: str, rewrite: Callable[[Path], Path]
) -> None:
    written = rewrite(put(stored(name), tmp_path, name))
    assert json.loads(written.read_text(encoding="utf-8")) == stored(name)


def test_models_with_unknown_fields_are_read(tmp_path: Path) -> None:
    document = stored("models.json")
    slow = document["models"]["slow"]
    tasks = {name: cost | LATER for name, cost in slow["tasks"].items()}
    models = document["models"] | {"slow": slow | {"tasks": tasks} | LATER}
    written = product.rewrite_models(put(document | {"models": models} | LATER, tmp_path, "models.json"))
    assert json.loads(written.read_text()) == document


def test_models_with_missing_fields_are_read(tmp_path: Path) -> None:
    written = product.rewrite_models(put({"version": 1, "models": {"slow": {}}}, tmp_path, "models.json"))
    assert json.loads(written.read_text())["models"].keys() == {"slow"}


def test_settings_with_unknown_fields_are_read(tmp_path: Path) -> None:
    document = stored("settings.json")
    later = document | {"pools": [pool | LATER for pool in document["pools"]]} | LATER
    later |= {name: part | LATER for name, part in document.items() if isinstance(part, dict)}
    assert json.loads(product.rewrite_settings(put(later, tmp_path, "settings.json")).read_text()) == document


def test_settings_of_the_first_version_are_read(tmp_path: Path) -> None:
    pool = {"name": "slow", "queues": ["low"], "concurrency": 1, "max_tasks_per_child": 10}
    first = {"app": "app", "pools": [pool], "runtime_dir": "/run/recyclery"}
    written = json.loads(product.rewrite_settings(put(first, tmp_path, "settings.json")).read_text())
    assert written.keys() == stored("settings.json").keys()
    assert written["grace_seconds"] == 25.0


@pytest.mark.parametrize(("pool", "deaths"), [("slow", 5), ("nobody", 3)])
def test_the_worker_reads_max_task_deaths_from_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: str, deaths: int
) -> None:
    put(stored("settings.json"), tmp_path, "settings.json")
    monkeypatch.setenv("RECYCLERY_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("RECYCLERY_POOL", pool)
    assert product.workers_max_deaths() == deaths


def test_firing_alerts_are_stored_and_loaded_again(tmp_path: Path) -> None:
    assert json.loads(product.fire_alerts(tmp_path).read_text()) == stored("alerts.json")
    firing = product.remembered_alerts(tmp_path)
    assert {kind for kind, count in firing.items() if count} == {"parked", "queue_depth"}


def test_the_heartbeat_has_a_time_and_the_state_of_each_pool(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    beat = json.loads(product.beat(tmp_path, {"fast": "running", "slow": "starting"}).read_text())
    assert capfdbinary.readouterr().out == b"\0"
    assert {**beat, "at": 100.0} == stored("heartbeat.json")
    assert isinstance(beat["at"], float)
    assert product.health_fault(STORED / "heartbeat.json", now=101.0) == "slow is starting"
