"""The example's web service: tasks are sent, their state is told, the queues and workers are shown."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from support.redis_server import redis_server
from support.waiting import wait_for

BACKOFFICE = Path(__file__).parents[2] / "examples" / "backoffice"
TASKS = "app.infrastructure.celery.tasks"


class Backend:
    """The service, spoken to over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str) -> str:
        with urlopen(f"{self.url}{path}", timeout=30) as answer:
            return str(answer.read().decode())

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = Request(
            f"{self.url}{path}",
            data=json.dumps(body or {}).encode(),
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        with urlopen(request, timeout=30) as answer:
            document: dict[str, Any] = json.load(answer)
            return document

    def outcome(self, task_id: str) -> dict[str, Any]:
        """Wait until the task has ended; return its state document."""

        def look() -> dict[str, Any] | None:
            document: dict[str, Any] = json.loads(self.get(f"/tasks/{task_id}"))
            return document if document["state"] in {"SUCCESS", "FAILURE"} else None

        return wait_for(look, f"the end of task {task_id}")

    def is_up(self) -> bool:
        try:
            return self.get("/health") == "ok\n"
        except (URLError, ConnectionError):
            return False


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with redis_server() as redis_url, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        worker = ["celery", "-A", "app.infrastructure.celery", "worker", "-P", "solo", "-n", "all@%h"]
        commands = (
            [*worker, "-Q", "high,default,low", "-l", "error"],
            ["uvicorn", "app.backend.main:api", "--log-level", "error", "--fd", str(listening.fileno())],
        )
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CELERY_")}
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=BACKOFFICE,
                env={**clean, "REDIS_URL": redis_url},
                pass_fds=[listening.fileno()],
            )
            for command in commands
        ]
        try:
            service = Backend(f"http://127.0.0.1:{listening.getsockname()[1]}")
            wait_for(service.is_up, "the backend")
            yield service
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(20)


@pytest.mark.parametrize(
    ("path", "body", "task"),
    [
        ("/tasks/process_pending", {}, "notifications.process_pending"),
        ("/tasks/sync_calendar", {}, "calendar.sync_calendar"),
        ("/tasks/compact_memory", {}, "memory.compact_memory"),
        ("/tasks/ping", {"number": 1, "run": "test", "sent_at": time.time()}, "storm.ping"),
    ],
)
def test_a_task_sent_over_http_is_done_by_a_worker(
    backend: Backend, path: str, body: dict[str, Any], task: str
) -> None:
    sent = backend.post(path, body)
    assert sent["task"] == f"{TASKS}.{task}"
    assert backend.outcome(sent["id"])["state"] == "SUCCESS"


def test_a_notification_is_sent_at_once(backend: Backend) -> None:
    sent = backend.post("/notifications", {"recipient": "ana", "text": "Your documents are here."})
    assert backend.outcome(sent["id"])["result"] == 1


@pytest.mark.parametrize(
    ("path", "body", "task"),
    [
        ("/tasks/sync_documents", {"session_id": "ana"}, "sii.sync_documents"),
        ("/tasks/scrape", {"number": 1, "run": "test", "forget": False}, "storm.scrape"),
    ],
)
def test_a_task_that_fails_shows_its_error(
    backend: Backend, path: str, body: dict[str, Any], task: str
) -> None:
    # No site listens, so whether there is a browser or not, it fails.
    sent = backend.post(path, body)
    assert sent["task"] == f"{TASKS}.{task}"
    outcome = backend.outcome(sent["id"])
    assert (outcome["state"], outcome["result"]) == ("FAILURE", None)
    assert re.match(r"\w+: ", outcome["error"])


def test_a_session_without_a_name_is_refused(backend: Backend) -> None:
    with pytest.raises(HTTPError) as refused:
        backend.post("/tasks/sync_documents", {"session_id": ""})
    assert refused.value.code == 422


def test_the_admin_page_shows_the_queues_and_the_workers_on_them(backend: Backend) -> None:
    page = re.sub(r"(\s*<[^>]+>\s*)+", "|", backend.get("/admin"))
    assert "|high|0|default|0|low|0|" in page
    assert re.search(r"\|all@[^|]+\|default, high, low\|1\|", page)
