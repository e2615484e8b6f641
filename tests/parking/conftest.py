"""What the tests of parked tasks share."""

from collections.abc import Iterator

import pytest
import redis

from recyclery_worker.parking.store import Lot


@pytest.fixture
def lot(fresh_redis: str) -> Iterator[Lot]:
    """The parked list of the emptied Redis."""
    with redis.Redis.from_url(fresh_redis) as client:
        yield Lot(client)
