"""In an app of any shape a task is late unless its own code or its app says otherwise, and doctor knows it."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, Task
from celery.app.defaults import DEFAULTS

from delivery.apps.table import EARLY, SHAPES, WHERE, name_of_app, name_of_work
from recyclery_worker.delivery import defaults as own_defaults
from recyclery_worker.delivery.defaults import REQUEUE, set_default
from recyclery_worker.plugin import log_early_tasks
from support.bare_worker import bare_worker
from support.redis_server import count_held
from support.supervised import SUPPORT, supervised
from support.waiting import wait_for

TESTS = SUPPORT.parent
HANDLER = """
from celery import Celery, signals

app = Celery(broker="redis://127.0.0.1:1/0")

@app.task
def work(): ...

@signals.{signal}.connect
def say(**_):
    app.conf.task_acks_late = False
"""


@pytest.fixture(scope="module")
def judged() -> dict[str, Any]:
    """What worker and doctor make of all shapes."""
    return judge(*map(name_of_app, EARLY))


def judge(*modules: str, folder: Path = TESTS) -> dict[str, Any]:
    """Return what worker and doctor make of these apps, which may be in a folder of their own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CELERY_")}
    with tempfile.TemporaryDirectory() as runtime_dir:
        here = {
            "CELERY_CUSTOM_WORKER_POOL": "recyclery_worker.pool:TaskPool",
            "PYTHONPATH": f"{WHERE['PYTHONPATH']}:{folder}",
            "RECYCLERY_POOL": "slow",
            "RECYCLERY_SLOT": "slow",
            "RECYCLERY_RUNTIME_DIR": runtime_dir,
        }
        done = subprocess.run(
            [sys.executable, "-m", "delivery.apps.judge", *modules],
            env={**clean, **here},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("shape", EARLY)
def test_a_task_is_late_and_given_back_unless_its_app_says_otherwise(
    judged: dict[str, Any], shape: str
) -> None:
    told: dict[str, list[bool]] = judged[name_of_app(shape)]["worker"]
    own = {name: is_late for name, (is_late, _) in told.items() if not name.startswith("celery.")}
    assert "work" in {name.rpartition(".")[2] for name in own}
    assert [name.rpartition(".")[2] for name, is_late in own.items() if not is_late] == [*EARLY[shape]]
    assert [name for name, (_, is_given_back) in told.items() if not is_given_back] == []


@pytest.mark.parametrize("shape", EARLY)
def test_doctor_names_exactly_the_tasks_that_are_early_in_the_worker(
    judged: dict[str, Any], shape: str
) -> None:
    answers = judged[name_of_app(shape)]
    own = {name: is_late for name, (is_late, _) in answers["worker"].items() if not name.startswith("celery.")}
    assert answers["doctor"]["early"] == sorted(name for name, is_late in own.items() if not is_late)
    assert answers["doctor"]["level"] == ("note" if EARLY[shape] else "ok")


def test_what_a_signal_handler_of_the_app_sets_counts(tmp_path: Path) -> None:
    names = ("celeryd_init", "worker_init", "celeryd_after_setup")
    for name in names:
        (tmp_path / f"by_{name}.py").write_text(HANDLER.format(signal=name))
    judged = judge(*(f"by_{name}" for name in names), folder=tmp_path)
    for name in names:
        assert judged[f"by_{name}"]["worker"][f"by_{name}.work"] == [False, True]


def test_the_table_names_every_shape() -> None:
    modules = {path.stem for path in Path(__file__).with_name("shapes").iterdir()}
    assert modules - {"__pycache__"} == {*EARLY}


@pytest.mark.parametrize(
    "shape",
    ["beat_by_name", *(pytest.param(each, marks=pytest.mark.slow) for each in EARLY if each != "beat_by_name")],
)
def test_in_an_app_of_any_shape_a_task_whose_process_is_killed_runs_again(
    sender: Celery, fresh_redis: str, tmp_path: Path, shape: str
) -> None:
    if EARLY[shape] == ("work",):
        pytest.skip("its one task says that it must not run twice")
    path = tmp_path / "runs"
    with (
        bare_worker(fresh_redis, app=name_of_app(shape), environment=WHERE) as worker,
        redis.Redis.from_url(fresh_redis) as client,
    ):
        sender.send_task(name_of_work(shape), (str(path), 2), queue="low")
        wait_for(lambda: path.exists() and path.read_text() == "x\n", "it runs")
        os.kill(worker.pids()[0], signal.SIGKILL)
        wait_for(lambda: path.read_text() == "x\nx\n", "it runs again")
        wait_for(lambda: count_held(client) == 0, "it is done with")


def test_a_worker_names_at_its_start_the_tasks_that_are_early(fresh_redis: str) -> None:
    app = {**WHERE, "CELERY_APP": f"{SHAPES}.early_by_task"}
    with supervised("--pool", "slow", redis_url=fresh_redis, environment=app) as running:
        running.wait_until_ready("slow")
        (line,) = [line for line in running.lines if "acknowledged as they begin" in line]
        assert line.endswith(f"so lost with their process (1): {SHAPES}.early_by_task.once")
        assert "INFO" in line


def test_tasks_that_are_early_though_nobody_said_so_are_named_in_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(DEFAULTS, "task_acks_late", False)
    app: Any = Celery("configured before", broker="memory://")

    def work() -> None:
        """A task."""

    for number in range(12):
        app.task(work, name=f"task-{number:02}", shared=False)
    app.finalize()
    # Those of other apps of this process, which are shared.
    for name in [name for name in app.tasks if not name.startswith("task-")]:
        del app.tasks[name]
    log_early_tasks(app)
    ((_, level, text),) = caplog.record_tuples
    assert level == logging.WARNING
    assert "(12): task-00, task-01," in text
    assert text.endswith("task-09, …")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"CELERY_ACKS_LATE": True}, True),
        ({"task_reject_on_worker_lost": False}, False),
        ({"CELERY_REJECT_ON_WORKER_LOST": False}, False),
    ],
)
def test_a_default_of_an_imported_app_is_changed_for_that_app_alone(
    settings: dict[str, bool], expected: bool
) -> None:
    app, other = (Celery(broker="memory://", set_as_current=False) for _ in range(2))
    app.config_from_object(settings)
    set_default(app, REQUEUE, True)
    assert app.conf.task_reject_on_worker_lost is expected
    assert not other.conf.task_reject_on_worker_lost


def test_the_tasks_of_another_app_in_the_process_keep_what_that_app_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Task, "bind", classmethod(own_defaults.bind_and_note))
    ours, other = Celery("a", set_as_current=False), Celery("b", set_as_current=False)
    other.conf.task_acks_late = False

    @other.task(name="b.task")
    def task() -> None: ...

    assert task.acks_late is False
    ours.conf.task_acks_late = True
    own_defaults.settle_tasks(ours)
    assert task.acks_late is False
