"""Whether the result backend takes results, and that a worker says so where it does not."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.backends.base import Backend
from redis.exceptions import NoPermissionError

from recyclery_worker.broker.result_backend import (
    ANSWER_SECONDS,
    PROBE_ID,
    ask_for_write,
    find_backend_problem,
    warn_of_backend,
)
from recyclery_worker.plugin import log_backend
from support.bare_worker import bare_worker
from support.redis_server import redis_server
from support.waiting import wait_for


def problem_of(backend: str | None) -> str:
    """What is wrong with a result backend."""
    return find_backend_problem(Celery(broker="memory://", backend=backend, set_as_current=False))


def test_a_backend_that_takes_results_has_no_problem_and_keeps_nothing() -> None:
    with redis_server() as url, redis.Redis.from_url(url) as client:
        assert problem_of(url) == ""
        assert client.keys("*") == []
        wait_for(lambda: len(client.client_list()) == 1, "none but our own is open")


@pytest.mark.parametrize("backend", [None, "disabled://", "rpc://", "cache+memory://"])
def test_a_backend_that_cannot_be_away_has_no_problem(backend: str | None) -> None:
    assert problem_of(backend) == ""


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("redis://:hunter2@127.0.0.1:1/0", "redis://:**@127.0.0.1:1/0: Error 111"),
        # It asks more than once, and so may not be done in time.
        ("sentinel://:hunter2@127.0.0.1:1/0", ""),
        ("redi://:hunter2@127.0.0.1:1/0", "'redi'"),
        ("redis//:hunter2@127.0.0.1", "its scheme right"),
        ("redis://:hunter2/x@127.0.0.1/0", "percent-encoded"),
        ("rediss://127.0.0.1:1/0", "ssl_cert_reqs"),
        ("no-such-backend", "no-such-backend"),
        ("file:///no/such/folder", "cannot be used"),
    ],
)
def test_a_backend_that_is_away_or_wrong_is_described_without_its_password(backend: str, words: str) -> None:
    begun = time.monotonic()
    problem = problem_of(backend)
    assert problem
    assert words in problem
    assert "hunter2" not in problem
    assert time.monotonic() - begun < ANSWER_SECONDS + 1


def test_a_backend_that_takes_no_writes_is_found() -> None:
    with redis_server() as url, redis.Redis.from_url(url) as client:
        client.replicaof("127.0.0.1", "1")
        assert "read only" in problem_of(url)
        client.replicaof("NO", "ONE")
        client.config_set("maxmemory", "1")
        assert "maxmemory" in problem_of(url)


@pytest.mark.parametrize(
    ("rights", "problem"),
    [
        ("~celery-task-meta-* &* +@all -setrange", ""),
        ("~celery-task-meta-* &* +@all", ""),
        ("~others-* &* +@all", "access"),
        ("~celery-task-meta-* resetchannels +@all", "channel"),
        ("~celery-task-meta-* &* +@all -publish", "publish"),
        ("~celery-task-meta-* &* +@all -setrange -publish", "publish"),
    ],
)
def test_a_backend_is_judged_by_what_its_user_needs_to_store_results(rights: str, problem: str) -> None:
    with redis_server() as url, redis.Redis.from_url(url) as client:
        client.execute_command("ACL", "SETUSER", "some", *f"on >secret {rights}".split())
        found = problem_of(url.replace("redis://", "redis://some:secret@"))
        assert problem in found
        assert bool(found) is bool(problem)


class Refusing:
    """A Redis that refuses whatever it is asked."""

    def __init__(self, text: str) -> None:
        self.text = text

    def setrange(self, *_: object) -> None:
        raise NoPermissionError(self.text)


# As Redis 6.2.14, 7.0.15 and 8.2.3 word it.
@pytest.mark.parametrize(
    "text",
    [
        "this user has no permissions to run the 'setrange' command or its subcommand",
        "this user has no permissions to run the 'setrange' command",
        "User keys has no permissions to run the 'setrange' command",
    ],
)
def test_a_user_who_lacks_the_probes_command_alone_has_no_problem(text: str) -> None:
    ask_for_write(Refusing(text), "key")


@pytest.mark.parametrize(
    "text",
    [
        "this user has no permissions to access one of the keys used as arguments",
        "No permissions to access a key",
    ],
)
def test_a_user_who_lacks_the_key_has_a_problem(text: str) -> None:
    with pytest.raises(NoPermissionError):
        ask_for_write(Refusing(text), "key")


class OwnBackend(Backend):
    """An app's own, which can only be written to."""

    made = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        type(self).made += 1


class OwnApp(Celery):
    """An app that makes its backend by code, and names none that Celery knows."""

    def _get_backend(self) -> Backend:
        return OwnBackend(app=self)


def test_a_backend_that_the_app_makes_itself_is_made_once_in_a_worker(caplog: pytest.LogCaptureFixture) -> None:
    app = OwnApp(broker="memory://", backend="own://:hunter2@somewhere", set_as_current=False)
    OwnBackend.made, threads = 0, threading.active_count()
    log_backend(app)
    assert app.backend
    warn_of_backend(app)
    assert threading.active_count() == threads
    assert OwnBackend.made == 1
    assert caplog.text == ""
    assert find_backend_problem(app) == ""


@pytest.mark.parametrize("problem", [SystemExit("no licence"), KeyboardInterrupt("no licence")])
def test_a_backend_whose_code_exits_has_a_problem(problem: BaseException) -> None:
    class Exiting(Celery):
        def _get_backend(self) -> Backend:
            raise problem

    begun = time.monotonic()
    assert "no licence" in find_backend_problem(Exiting(broker="memory://", set_as_current=False))
    assert time.monotonic() - begun < ANSWER_SECONDS


@pytest.mark.slow
def test_a_backend_that_hangs_is_found_within_five_seconds() -> None:
    with redis_server() as url:
        with redis.Redis.from_url(url) as client:
            pid = int(client.info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            assert problem_of(url)
            assert time.monotonic() - begun < 5
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_worker_whose_backend_celery_does_not_know_says_so_before_celery_ends_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log_backend(Celery(broker="memory://", backend="redi://:hunter2@127.0.0.1/0", set_as_current=False))
    assert "this worker's result backend cannot be used: " in caplog.text
    assert "hunter2" not in caplog.text


def test_a_worker_says_once_that_results_will_be_lost_and_works(
    fresh_redis: str, sender: Celery, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    variables = {"CELERY_RESULT_BACKEND": "redis://:hunter2@127.0.0.1:1/0"}
    with bare_worker(fresh_redis, environment=variables) as worker:
        time_out = time.monotonic() + 30
        said = ""
        while "results will be lost" not in said and time.monotonic() < time_out:
            time.sleep(0.1)
            said += capfd.readouterr().err
        worker.process.terminate()
        worker.process.wait(60)
    said += capfd.readouterr().err
    assert said.count("results will be lost") == 1
    assert "hunter2" not in said
    assert worker.process.returncode == 0
    assert PROBE_ID not in said
