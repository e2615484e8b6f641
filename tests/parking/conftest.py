"""What the tests of parked tasks share."""

from collections.abc import Iterator

import pytest
import redis

from recyclery_worker.parking.records import DeadLetterStore


@pytest.fixture
def lot(fresh_redis: str) -> Iterator[DeadLetterStore]:
    """The parked list of the emptied Redis."""
    with redis.Redis.from_url(fresh_redis) as client:
        yield DeadLetterStore(client)
