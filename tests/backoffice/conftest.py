"""What the back office's tests stand on: its own site, and an empty Redis."""

from collections.abc import Iterator

import pytest
from redis import Redis

from taxoffice.server import running_site


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the tax office's site and point the tasks to it; give its URL."""
    with running_site() as url:
        monkeypatch.setenv("SITE_URL", url)
        yield url


@pytest.fixture
def redis(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    """Point the tasks to an empty Redis; give a client of it."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setattr("app.infrastructure.redis_client._clients", {})
    with Redis.from_url(redis_url, decode_responses=True) as client:
        client.flushall()
        yield client
