"""What a browser that does not start is told to be."""

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from recyclery_worker.browser.session import find_cut_off
from recyclery_worker.pool.task_limit import TaskMemoryLimitExceeded


@pytest.mark.parametrize("limit", [SoftTimeLimitExceeded, TaskMemoryLimitExceeded])
def test_a_limit_that_ends_a_task_as_its_browser_starts_is_not_hidden_by_what_fails_for_it(
    limit: type[Exception],
) -> None:
    found = None
    try:
        try:
            raise limit("too much")
        except limit:
            raise ConnectionResetError("as chromedriver is stopped") from None
    except OSError as error:
        found = find_cut_off(error)
    assert isinstance(found, limit)
    assert find_cut_off(ConnectionResetError("for another reason")) is None
