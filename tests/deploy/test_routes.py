"""`recyclery routes`: each task, its queue and its pool, without a broker."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BACKOFFICE = ROOT / "examples" / "backoffice"
TASKS = "app.infrastructure.celery.tasks"

APP = """
import re
from celery import Celery
from kombu import Exchange, Queue

print("loading the app")
app = Celery("routed", broker="redis://127.0.0.1:1/0")
topics = Exchange("topics", type="topic")

def by_function(name, args, kwargs, options, task=None, **more):
    return "low" if name == "by_function" else None

app.conf.update(
    task_queues=[
        Queue("high", Exchange("high"), "high"),
        Queue("default", Exchange("default"), "default"),
        Queue("low", Exchange("low"), "low"),
        Queue("mails", topics, "mail.#"),
    ],
    task_default_queue="default",
    task_create_missing_queues=False,
    task_routes=([("by_glob.*", {"queue": "high"}), (re.compile(r"by_regex\\.\\d+"), "low")], by_function, {
        "by_key": {"exchange": "topics", "routing_key": "mail.sent"}, "to_nowhere": "gone"}),
)

def work():
    return None

for name in ("by_glob.one", "by_regex.1", "by_function", "by_key", "by_default"):
    app.task(work, name=name)
app.task(work, name="by_itself", queue="high")
"""


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "RECYCLERY_"))}


def run_routes(
    *arguments: str, folder: Path = BACKOFFICE, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    # Nobody listens on port 1.
    return subprocess.run(
        [sys.executable, "-m", "recyclery", "routes", *arguments],
        cwd=folder,
        env={**clean_environment(), "REDIS_URL": "redis://127.0.0.1:1/0", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def queues_and_pools(document: str) -> dict[str, tuple[list[str], list[str], str]]:
    tasks = json.loads(document)["tasks"]
    return {name: (task["queues"], task["pools"], task["chosen_by"]) for name, task in tasks.items()}


@pytest.fixture
def routed_app(tmp_path: Path) -> Path:
    (tmp_path / "routed.py").write_text(APP)
    (tmp_path / "pools.toml").write_text(
        '[pools.fast]\nqueues = ["high", "default"]\n[pools.slow]\n[pools.post]\nqueues = ["mails"]\n'
    )
    return tmp_path


def test_each_task_of_the_example_is_shown_with_the_queue_and_pool_of_the_guide() -> None:
    done = run_routes("-A", "app.infrastructure.celery", "--json")
    assert done.returncode == 0, done.stderr
    assert queues_and_pools(done.stdout) == {
        f"{TASKS}.notifications.process_pending": (["high"], ["fast"], "task_routes"),
        f"{TASKS}.calendar.sync_calendar": (["default"], ["fast"], "task_routes"),
        f"{TASKS}.memory.compact_memory": (["default"], ["fast"], "task_routes"),
        f"{TASKS}.sii.sync_documents": (["low"], ["slow"], "task_routes"),
        f"{TASKS}.storm.ping": (["high"], ["fast"], "task_routes"),
        f"{TASKS}.storm.scrape": (["low"], ["slow"], "task_routes"),
    }


def test_a_single_worker_serves_every_queue() -> None:
    done = run_routes("-A", "app.infrastructure.celery", "--single", "--json")
    assert {tuple(pools) for _, pools, _ in queues_and_pools(done.stdout).values()} == {("worker",)}


def test_the_routes_are_those_of_all_containers_also_when_asked_in_one() -> None:
    environment = {
        "CELERY_APP": "app.infrastructure.celery",
        "CELERY_WORKER_NAME": "fast",
        "CELERY_CONCURRENCY": "5",
    }
    done = run_routes(environment=environment)
    assert done.returncode == 0, done.stdout
    assert "slow" in done.stdout


def test_the_pool_that_the_environment_names_serves_its_queue(routed_app: Path) -> None:
    environment = {"CELERY_WORKER_NAME": "post", "CELERY_QUEUES": "mails,high,default,low"}
    done = run_routes("-A", "routed", folder=routed_app, environment=environment)
    assert done.returncode == 0, done.stdout
    assert {line.split()[2] for line in done.stdout.splitlines()[1:7]} == {"post"}


def test_every_way_to_route_a_task_is_followed(routed_app: Path) -> None:
    done = run_routes("-A", "routed", "--config", "pools.toml", "--json", folder=routed_app)
    assert done.returncode == 0, done.stdout + done.stderr
    assert queues_and_pools(done.stdout) == {
        "by_glob.one": (["high"], ["fast"], "task_routes"),
        "by_regex.1": (["low"], ["slow"], "task_routes"),
        "by_function": (["low"], ["slow"], "task_routes"),
        "by_key": (["mails"], ["post"], "task_routes"),
        "by_default": (["default"], ["fast"], "task_default_queue"),
        "by_itself": (["high"], ["fast"], "the task"),
    }


def test_a_queue_without_a_pool_is_named_and_fails(routed_app: Path) -> None:
    done = run_routes("-A", "routed", folder=routed_app)
    assert done.returncode == 1
    assert "queue mails has no pool: 1 kinds of task go there, by_key first" in " ".join(done.stdout.split())


def test_a_declared_queue_that_no_pool_serves_fails_even_without_a_task(routed_app: Path) -> None:
    app = routed_app / "routed.py"
    app.write_text(app.read_text().replace('"by_key", "by_default"', '"by_default"'))
    done = run_routes("-A", "routed", folder=routed_app)
    assert done.returncode == 1
    assert "queue mails has no pool: the app declares it" in done.stdout


def test_a_pool_that_no_task_goes_to_is_named_and_fails(routed_app: Path) -> None:
    with (routed_app / "pools.toml").open("a") as file:
        file.write('[pools.idle]\nqueues = ["reports"]\n')
    done = run_routes("-A", "routed", "--config", "pools.toml", folder=routed_app)
    assert done.returncode == 1
    assert "pool idle gets no task: nothing goes to reports" in done.stdout


def test_a_task_routed_to_a_queue_that_is_not_there_is_named_and_fails(routed_app: Path) -> None:
    with (routed_app / "routed.py").open("a") as file:
        file.write('\napp.task(work, name="to_nowhere")\n')
    done = run_routes("-A", "routed", "--config", "pools.toml", folder=routed_app)
    assert done.returncode == 1
    assert "to_nowhere goes nowhere: QueueNotFound: \"Queue 'gone' missing" in " ".join(done.stdout.split())


def test_the_table_stays_within_80_columns(routed_app: Path) -> None:
    with (routed_app / "routed.py").open("a") as file:
        file.write('\napp.task(work, name="a.very.long.name" * 12, queue=Queue("q" * 40))\n')
    done = run_routes("-A", "routed", "--config", "pools.toml", folder=routed_app)
    table = done.stdout.split("\n\n")[0].splitlines()
    assert len(table) == 1 + 7
    assert max(map(len, table)) <= 80


def test_what_the_app_prints_when_it_is_imported_is_not_part_of_the_document(routed_app: Path) -> None:
    done = run_routes("-A", "routed", "--config", "pools.toml", "--json", folder=routed_app)
    assert "loading the app" in done.stderr
    assert json.loads(done.stdout)["problems"] == []


def test_an_app_that_cannot_be_imported_is_a_bad_configuration() -> None:
    done = run_routes("-A", "no_such_app")
    assert done.returncode == 78
    assert "app is 'no_such_app': it cannot be imported" in done.stderr


def test_the_guides_script_checks_the_example_from_any_folder(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "verify_celery_routing.py"
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every queue has a pool" in done.stdout


def test_the_guides_script_checks_the_app_of_the_backend_it_lies_in(routed_app: Path) -> None:
    (routed_app / "scripts").mkdir()
    script = routed_app / "scripts" / "verify_celery_routing.py"
    script.write_text((ROOT / "scripts" / "verify_celery_routing.py").read_text())
    package = routed_app / "app" / "infrastructure" / "celery"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(APP)
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(),
    )
    assert done.returncode == 1, done.stderr
    assert "queue mails has no pool" in done.stdout
