"""The worker's programs (`python -m recyclery_worker.…`) when a worker's own process starts them."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from recyclery_worker.broker import connection as own_connection
from support.bare_worker import bare_worker
from support.waiting import wait_for

# Named like a module of ours, in the working directory alone.
APP = """
import sys
from celery import Celery

assert sys.argv[0].endswith("celery")
app = Celery(broker={url!r}, backend={url!r})

@app.task
def double(number):
    import helper
    return helper.double(number)
"""


@pytest.mark.parametrize("program", ["app_check", "delivery.reclaim", "tuning.cleanup"])
def test_a_program_does_not_warn_that_its_package_has_imported_it(program: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("from celery import Celery\napp = Celery(broker='memory://')\n")
    done = subprocess.run(
        [sys.executable, "-m", f"recyclery_worker.{program}", "shop"],
        env={**os.environ, "RECYCLERY_POOL": "low"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "RuntimeWarning" not in done.stderr
    assert done.stdout or "not Redis" in done.stderr


@pytest.mark.slow
def test_a_worker_that_is_told_to_restart_by_hup_finds_what_it_found_before(
    sender: Celery, fresh_redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "control.py").write_text(APP.format(url=fresh_redis))
    (tmp_path / "helper.py").write_text("def double(number): return 2 * number")
    monkeypatch.chdir(tmp_path)
    with bare_worker(fresh_redis, app="control", environment={"PYTHONPATH": ""}) as worker:
        before = worker.pids()
        worker.process.send_signal(signal.SIGHUP)

        def has_restarted() -> bool:
            try:
                return set(worker.pids()).isdisjoint(before)
            except OSError:
                return False

        wait_for(has_restarted, "other children")
        assert sender.send_task("control.double", (2,), queue="low").get(timeout=30) == 4


def test_a_program_that_sentinel_does_not_answer_says_so_without_the_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class App:
        def connection_for_write(self) -> Any:
            raise ConnectionError("No master found for 'm' : <redis.client.Redis(password=secret)> - away")

    monkeypatch.setattr(own_connection, "prepare_import", lambda: 1)
    monkeypatch.setattr(own_connection, "load_app", lambda name: App())
    assert own_connection.run_program("app", lambda app, output: None, without_redis="") == 4
    assert capsys.readouterr().err == "ConnectionError: No master found for 'm'\n"
