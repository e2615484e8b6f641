"""The back office under the supervisor, started as the deployment guide has it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery.exceptions import TimeoutError as NotInTime

from support.sending import sending_to
from support.supervised import Supervised, supervised

BACKOFFICE = Path(__file__).parents[2] / "examples" / "backoffice"
TASKS = "app.infrastructure.celery.tasks"


@pytest.fixture(scope="module")
def office(redis_url: str) -> Iterator[Supervised]:
    """Both pools, on a machine whose Chrome is missing."""
    environment = {
        "CELERY_APP": "app.infrastructure.celery",
        "PYTHONPATH": str(BACKOFFICE),
        "CHROME_BINARY": "/no/such/chrome",
    }
    with supervised(redis_url=redis_url, environment=environment) as running:
        running.wait_until_ready("fast", "slow")
        yield running


def test_without_chrome_a_slow_task_fails_with_the_fix_and_the_fast_pool_works(
    office: Supervised, redis_url: str
) -> None:
    with sending_to(redis_url) as sender:
        slow = sender.send_task(f"{TASKS}.sii.sync_documents", ("ana",), queue="low")
        fast = sender.send_task(f"{TASKS}.notifications.process_pending", queue="high")
        assert isinstance(fast.get(timeout=20), int)
        with pytest.raises(Exception, match=r"CHROME_BINARY.*/no/such/chrome") as failure:
            slow.get(timeout=20)
        assert not isinstance(failure.value, NotInTime)


@pytest.mark.parametrize("command", ["active_queues", "registered", "stats"])
def test_the_guides_inspect_commands_reach_both_workers(
    office: Supervised, redis_url: str, command: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "app.infrastructure.celery", "inspect", command],
        env={**os.environ, "REDIS_URL": redis_url, "PYTHONPATH": str(BACKOFFICE)},
        capture_output=True,
        text=True,
        check=False,
    )
    host = os.uname().nodename
    assert done.returncode == 0, done.stderr
    assert f"fast@{host}: OK" in done.stdout
    assert f"slow@{host}: OK" in done.stdout
