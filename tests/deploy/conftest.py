"""Images and a Redis in a container, for tests that want a Docker engine; the storm is the benchmark's."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from celery import Celery
from redis import ConnectionError as RedisConnectionError
from redis import Redis

from deploy.engine import (
    BASE_IMAGE,
    REDIS_IMAGE,
    ROOT,
    build,
    container,
    docker,
    network_of_its_own,
    skip_without_engine,
)
from support.sending import sending_to
from support.waiting import wait_for

sys.path.append(str(ROOT))  # however pytest was started

YOUR_DOCKERFILE = """\
FROM {base}
COPY . .
RUN pip install -r requirements.txt
"""


@dataclass(frozen=True)
class Stage:
    """A network with a Redis: `inside` is its URL for containers, `redis` a client, `sender` a producer."""

    network: str
    inside: str
    redis: Redis
    sender: Celery

    def options(self, **environment: str) -> list[str]:
        """Options of `docker run` for a worker of the sample app."""
        given = {"REDIS_URL": self.inside, "CELERY_APP": "sample_app", **environment}
        return [option for name, value in given.items() for option in ("-e", f"{name}={value}")]


@pytest.fixture(scope="session")
def fast_image() -> str:
    """Recyclery alone, built from Dockerfile.fast."""
    skip_without_engine(BASE_IMAGE)
    return build("Dockerfile.fast", "recyclery-test:fast", "--target", "recyclery")


@pytest.fixture(scope="session")
def slow_image() -> str:
    """The example with Chromium, built from Dockerfile.slow."""
    skip_without_engine(BASE_IMAGE)
    return build("Dockerfile.slow", "recyclery-test:slow")


@pytest.fixture(scope="session")
def sample_image(fast_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sample app on the fast image, in the three lines of the documentation."""
    folder: Path = tmp_path_factory.mktemp("sample")
    (folder / "Dockerfile").write_text(YOUR_DOCKERFILE.format(base=fast_image))
    (folder / "requirements.txt").write_text("redis\n")
    (folder / "sample_app.py").write_text((ROOT / "tests" / "support" / "sample_app.py").read_text())
    docker("build", "-t", "recyclery-test:sample", str(folder))
    return "recyclery-test:sample"


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A Redis of the test's own."""
    skip_without_engine(REDIS_IMAGE)
    port = ("-p", "127.0.0.1::6379", "--network-alias", "redis")
    with network_of_its_own() as network, container(REDIS_IMAGE, network, *port) as server:
        address = docker("port", server.name, "6379").splitlines()[0]
        url = f"redis://{address}/0"
        with Redis.from_url(url) as client:
            wait_for(lambda: answers(client), "Redis")
            with sending_to(url) as sender:
                yield Stage(network, "redis://redis:6379/0", client, sender)


def answers(client: Redis) -> bool:
    """Tell whether the server is there."""
    try:
        return bool(client.ping())
    except RedisConnectionError:
        return False
