"""Fixtures for tests that need a real Redis, and the order of files that run beside each other."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from celery import Celery

from support.redis_server import empty, redis_server
from support.sending import sending_to

# A busy machine makes no example wrong.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


WAITING = {"redis_url", "start"}
"""The fixtures of tests that start processes and wait for them."""
SECONDS = {"chaos": 60, "browser": 10, "cgroup": 10, "docker": 10, "slow": 10}
"""How long a test takes, by its marks, roughly."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several files run at the same time, begin with those that take longest."""
    if hasattr(config, "workerinput"):
        seconds: Counter[Path] = Counter()
        for item in items:
            seconds[item.path] += estimate_seconds(item)
        items.sort(key=lambda item: -seconds[item.path])


def estimate_seconds(item: pytest.Item) -> int:
    """Return roughly how long a test takes; 0 for one that starts nothing."""
    marked = [SECONDS.get(mark.name, 0) for mark in item.iter_markers()]
    waits = not WAITING.isdisjoint(getattr(item, "fixturenames", ()))
    return max(2 * waits, *marked, 0)


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A real redis-server for the whole run."""
    with redis_server() as url:
        yield url


@pytest.fixture
def fresh_redis(redis_url: str) -> str:
    """The same server, emptied."""
    empty(redis_url)
    return redis_url


@pytest.fixture
def sender(fresh_redis: str) -> Iterator[Celery]:
    """A producer for the sample app's tasks: send_task("sample_app.add", (1, 2), queue="high")."""
    with sending_to(fresh_redis) as app:
        yield app


@pytest.fixture
def false_browser(tmp_path: Path) -> str:
    """A program that the kernel names `chromium`, and that only sleeps."""
    program = tmp_path / "chromium"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    return str(program)
