"""`recyclery doctor` on a real app, a real broker and a real supervisor."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from support.supervised import SUPPORT, supervised

AWAY = "redis://:hunter2@127.0.0.1:1/0"
BROWSING_APP = """
from celery import Celery
import recyclery_worker.browser

app = Celery(broker="memory://")
"""


def doctor(redis_url: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run it for the sample app."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "RECYCLERY_"))
    }
    environment = {"CELERY_APP": "sample_app", "PYTHONPATH": str(SUPPORT), "REDIS_URL": redis_url, **variables}
    return subprocess.run(
        [sys.executable, "-m", "recyclery", "doctor", *arguments],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def levels(done: "subprocess.CompletedProcess[str]") -> dict[str, list[str]]:
    """Return the levels of what it found by name."""
    document: dict[str, Any] = json.loads(done.stdout)
    found: dict[str, list[str]] = {}
    for finding in document["findings"]:
        found.setdefault(finding["name"], []).append(finding["level"])
    return found


def test_a_broker_that_is_away_is_a_failure_and_its_password_is_not_shown() -> None:
    done = doctor(AWAY)
    assert done.returncode == 1, done.stderr
    assert "FAILURE  broker: redis://:**@127.0.0.1:1/0 does not answer" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "-> start it, or set REDIS_URL" in done.stdout
    assert done.stderr == ""


def test_a_broker_list_of_which_one_answers_is_no_failure(fresh_redis: str) -> None:
    done = doctor(f"{AWAY};{fresh_redis}", "--json", CELERY_RESULT_BACKEND=fresh_redis)
    found = levels(done)
    assert found["broker"] == ["warning", "ok"]
    assert found["forgotten tasks"] == ["ok"]
    assert "hunter2" not in done.stdout + done.stderr


def test_a_result_backend_that_is_away_is_a_failure_within_five_seconds(fresh_redis: str) -> None:
    begun = time.monotonic()
    assert levels(doctor(fresh_redis, "--json"))["result backend"] == ["ok"]
    well = time.monotonic() - begun
    done = doctor(fresh_redis, "--json", CELERY_RESULT_BACKEND=AWAY)
    assert time.monotonic() - begun - well < well + 5
    assert levels(done)["result backend"] == ["failure"]
    assert done.returncode == 1
    assert "hunter2" not in done.stdout + done.stderr


def test_nothing_is_said_of_leases_where_the_broker_is_not_redis(tmp_path: Path) -> None:
    (tmp_path / "memory_app.py").write_text('from celery import Celery\napp = Celery(broker="memory://")\n')
    found = levels(doctor("", "--json", "-A", "memory_app", PYTHONPATH=str(tmp_path)))
    assert found["broker"] == ["skipped"]
    assert not found.keys() & {"leases", "visibility timeout", "forgotten tasks", "tunings", "connections"}


def test_an_app_that_cannot_be_imported_is_a_failure_and_ends_it(fresh_redis: str) -> None:
    done = doctor(fresh_redis, "-A", "no_such_app")
    assert done.returncode == 1
    assert "FAILURE  app: no_such_app: " in done.stdout


def test_a_configuration_that_cannot_be_used_is_a_failure(fresh_redis: str) -> None:
    done = doctor(fresh_redis, "--json", RECYCLERY_GRACE="soon")
    assert done.returncode == 1
    assert levels(done) == {"configuration": ["failure"]}


def test_beside_a_supervisor_it_is_asked_and_tasks_that_nobody_takes_are_found(
    fresh_redis: str, sender: Celery
) -> None:
    sender.send_task("sample_app.nap", (0,), queue="celery")
    with supervised("--pool", "slow", redis_url=fresh_redis) as running:
        running.wait_until_ready("slow")
        done = doctor(fresh_redis, "--json", RECYCLERY_RUNTIME_DIR=str(running.runtime_dir))
        found = levels(done)
        assert found["supervisor"] == ["ok"]
        assert found["broker"] == ["ok"]
        assert found["forgotten tasks"] == ["ok"]
        assert "failure" in found["tasks not processed"]
        assert done.returncode == 1
        assert "1 wait in celery, and no worker takes from it" in done.stdout


@pytest.mark.parametrize(
    ("driver", "level"), [pytest.param("156", "ok", marks=pytest.mark.slow), ("155", "failure")]
)
def test_a_driver_that_does_not_fit_its_browser_is_a_failure(tmp_path: Path, driver: str, level: str) -> None:
    (tmp_path / "browsing_app.py").write_text(BROWSING_APP)
    pair = {"CHROME_BINARY": "Chromium 156.0.1.2", "CHROMEDRIVER": f"ChromeDriver {driver}.0.1.2 (abc)"}
    for variable, version in pair.items():
        program = tmp_path / variable.lower()
        program.write_text(f"#!/bin/sh\necho '{version}'\n")
        program.chmod(0o755)
    done = doctor(
        "",
        *("--json", "-A", "browsing_app"),
        PYTHONPATH=str(tmp_path),
        **{variable: str(tmp_path / variable.lower()) for variable in pair},
    )
    assert levels(done)["browser"] == [level], done.stdout
