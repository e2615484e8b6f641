"""docker-compose.yml in both of the guide's modes, with the guide's own commands.

COMPOSE=docker-compose in the environment runs them with Compose 1.
"""

import base64
import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from deploy.engine import BASE_IMAGE, BUILD_SECONDS, REDIS_IMAGE, ROOT, docker, skip_without_engine
from support.ports import free_port
from support.waiting import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

COMPOSE = tuple(os.environ.get("COMPOSE", "docker compose").split())
CREDENTIALS = "tester:a-secret-of-the-test"
TASKS = "app.infrastructure.celery.tasks"
UP_SECONDS = 120.0
CLEAR_LINE = "\x1b[2K"  # Compose 2.26 writes it before each line, terminal or not


class Compose:
    """`docker compose` on a project of its own."""

    def __init__(self, folder: Path) -> None:
        self.name = f"recyclery-test-{uuid.uuid4().hex[:8]}"
        self.backend, self.flower = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CELERY_")},
            "BASE_IMAGE": BASE_IMAGE,
            "BACKEND_PORT": self.backend.rpartition(":")[2],
            "FLOWER_PORT": self.flower.rpartition(":")[2],
            "FLOWER_BASIC_AUTH": CREDENTIALS,
        }
        self.folder = folder

    def run(self, *arguments: str, seconds: float = 180.0) -> str:
        """Run a command of it; return what it printed. Fails with its errors."""
        done = subprocess.run(
            [*COMPOSE, "-p", self.name, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join((*COMPOSE, *arguments))}\n{done.stderr[-4000:]}"
        return done.stdout.strip()

    def up(self, *profile: str) -> None:
        """Start everything, and wait until the backend and Flower answer."""
        self.run(*profile, "up", "-d", "--no-build", seconds=UP_SECONDS)
        wait_for(lambda: answers(f"{self.backend}/health"), "the backend", UP_SECONDS)
        wait_for(lambda: answers(f"{self.flower}/flower/healthcheck"), "Flower", UP_SECONDS)

    def down(self) -> None:
        """Stop everything, in whatever mode it runs."""
        self.run("--profile", "*", "down", seconds=120)

    def workers(self) -> set[str]:
        """Name the workers' services that run."""
        # Compose 1 lists services that do not run, too.
        ours = ("--filter", f"label=com.docker.compose.project={self.name}")
        running = docker("ps", *ours, "--format", '{{.Label "com.docker.compose.service"}}').split()
        return {name for name in running if name.startswith("celery-worker")}

    def python(self, code: str) -> str:
        """Run Python in the backend, as the guide does."""
        return self.run("exec", "-T", "backend", "python", "-c", code)

    def post(self, path: str, body: dict[str, Any]) -> str:
        """Send a task through the backend; return its id."""
        request = Request(
            f"{self.backend}{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        with urlopen(request, timeout=30) as answer:
            return str(json.load(answer)["id"])

    def outcome(self, task_id: str) -> dict[str, Any]:
        """Wait for a task's end; return its state document from the backend."""

        def look() -> dict[str, Any] | None:
            with urlopen(f"{self.backend}/tasks/{task_id}", timeout=30) as answer:
                document: dict[str, Any] = json.load(answer)
            return document if document["state"] in {"SUCCESS", "FAILURE"} else None

        return wait_for(look, f"the end of task {task_id}", 120)

    def ask_flower(self, path: str) -> dict[str, Any]:
        """Ask Flower's API."""
        token = base64.b64encode(CREDENTIALS.encode()).decode()
        request = Request(f"{self.flower}/flower/api/{path}", headers={"Authorization": f"Basic {token}"})
        with urlopen(request, timeout=30) as answer:
            document: dict[str, Any] = json.load(answer)
        return document

    def queues_by_worker(self) -> dict[str, set[str]]:
        """Return the workers that Flower shows, with their queues."""
        workers = self.ask_flower("workers?refresh=1")
        return {
            node: {queue["name"] for queue in seen["active_queues"]}
            for node, seen in workers.items()
            if seen.get("active_queues")
        }

    def wait_for_workers(self, expected: dict[str, set[str]]) -> None:
        """Wait until Flower shows just these."""
        wait_for(lambda: self.queues_by_worker() == expected, f"{expected} in Flower", UP_SECONDS)

    def worker_of(self, task_id: str) -> str | None:
        """Return the worker that Flower saw a task on; None where it has not."""
        worker: str | None = self.ask_flower("tasks?limit=1000").get(task_id, {}).get("worker")
        return worker

    def worker_that_runs(self, send: Callable[[], str]) -> str:
        """Send a task until Flower sees one: only now and then it asks the workers to tell of theirs."""

        def look() -> str | None:
            task_id = send()
            assert self.outcome(task_id)["state"] == "SUCCESS"
            return self.worker_of(task_id)

        return wait_for(look, "a task in Flower", UP_SECONDS)

    def counts(self, key: str) -> dict[int, int]:
        """Return how often each number of a storm's hash was counted."""
        printed = self.run("exec", "-T", "redis", "redis-cli", "--raw", "hgetall", key).split()
        return {int(number): int(count) for number, count in zip(printed[::2], printed[1::2], strict=True)}

    def wait_for_one_more(self, key: str) -> None:
        """Wait until a number more is counted."""
        before = len(self.counts(key))
        wait_for(lambda: len(self.counts(key)) > before, f"more in {key}", 120)


def answers(url: str) -> bool:
    """Tell whether a URL gives 200."""
    try:
        with urlopen(url, timeout=5) as answer:
            return int(answer.status) == 200
    except (URLError, ConnectionError, TimeoutError):
        return False


@pytest.fixture(scope="module")
def compose() -> Iterator[Compose]:
    skip_without_engine(BASE_IMAGE, REDIS_IMAGE)
    version = subprocess.run([*COMPOSE, "version"], capture_output=True, text=True, check=False)
    if version.returncode != 0:
        pytest.skip(f"no {' '.join(COMPOSE)}: {version.stderr.strip()}")
    project = Compose(ROOT)
    project.run("--profile", "*", "build", seconds=2 * BUILD_SECONDS)
    try:
        yield project
    finally:
        project.run("--profile", "*", "down", "--volumes", "--timeout", "5")


@pytest.fixture(autouse=True)
def stopped(compose: Compose) -> Iterator[None]:
    yield
    compose.down()


def test_plain_up_runs_one_worker_on_all_queues(compose: Compose) -> None:
    compose.up()
    assert compose.workers() == {"celery-worker"}
    compose.wait_for_workers({"worker@fizko-celery-worker": {"high", "default", "low"}})
    (seen,) = compose.ask_flower("workers").values()
    assert seen["stats"]["pool"]["max-concurrency"] == 2


def test_the_guides_local_testing_with_two_workers(compose: Compose) -> None:
    compose.up("--profile", "workers")
    assert compose.workers() == {"celery-worker-fast", "celery-worker-slow"}
    fast, slow = "fast@fizko-celery-worker-fast", "slow@fizko-celery-worker-slow"
    compose.wait_for_workers({fast: {"high", "default"}, slow: {"low"}})
    code = f"from {TASKS}.notifications import process_pending; print(process_pending.delay().id)"
    light = compose.python(code)
    heavy = compose.post("/tasks/sync_documents", {"session_id": "ana"})
    assert compose.outcome(light)["state"] == "SUCCESS"
    documents = compose.outcome(heavy)
    assert (documents["state"], len(documents["result"] or ())) == ("SUCCESS", 20)
    assert compose.worker_that_runs(lambda: compose.python(code)) == fast
    heavy_again = ("/tasks/sync_documents", {"session_id": "ana"})
    assert compose.worker_that_runs(lambda: compose.post(*heavy_again)) == slow
    for service, queues in (("fast", "high,default"), ("slow", "low")):
        printed = compose.run("logs", "--no-log-prefix", f"celery-worker-{service}")
        lines = printed.replace(CLEAR_LINE, "").splitlines()
        banner = ["🔨 Starting Celery Worker", f"ℹ  Processing queues: {queues}", f"ℹ  Worker name: {service}"]
        assert lines[lines.index(banner[0]) :][:3] == banner
    assert not answers(f"{compose.flower}/flower/api/workers")
    with urlopen(f"{compose.backend}/admin", timeout=30) as answer:
        page = answer.read().decode()
    assert fast in page
    assert slow in page


def test_beat_sends_what_is_due(compose: Compose) -> None:
    compose.up()
    compose.python(f"from {TASKS}.notifications import queue_notification as q; q('ana', 'late')")
    code = f"from {TASKS}.notifications import list_sent; print([sent['text'] for sent in list_sent()])"
    wait_for(lambda: "late" in compose.python(code), "the notification to be sent", 90)


def test_switching_between_the_modes_under_load_does_every_task_once(compose: Compose) -> None:
    scrapes, pings, run = 24, 120, uuid.uuid4().hex
    compose.up()
    compose.wait_for_workers({"worker@fizko-celery-worker": {"high", "default", "low"}})
    for number in range(scrapes):
        compose.post("/tasks/scrape", {"number": number, "run": run})
    for number in range(pings):
        compose.post("/tasks/ping", {"number": number, "run": run, "sent_at": time.time()})
    scraped, pinged = f"recyclery:storm:{run}:scraped", f"recyclery:storm:{run}:pinged"
    for profile in (("--profile", "workers"), ()):
        compose.wait_for_one_more(scraped)
        assert len(compose.counts(scraped)) < scrapes, "the load is too small to switch under it"
        compose.down()
        compose.up(*profile)
    wait_for(lambda: len(compose.counts(scraped)) == scrapes, "the scrapes", 300)
    wait_for(lambda: len(compose.counts(pinged)) == pings, "the pings", 60)
    assert compose.counts(scraped) == dict.fromkeys(range(scrapes), 1)
    assert compose.counts(pinged) == dict.fromkeys(range(pings), 1)
    wait_for(lambda: not compose.run("exec", "-T", "redis", "redis-cli", "keys", "*unacked"), "nothing in hand")
