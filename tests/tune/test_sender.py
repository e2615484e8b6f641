"""What sends a tuning's tasks says why it cannot, and leaves nothing."""

import os
from contextlib import closing

import pytest
import redis

from recyclery.tune.sender import TaskSender
from recyclery.tune.spec import TuningFailed
from support.supervised import SUPPORT
from support.tune_windows import asked
from support.tuning import content_of


def refusal(redis_url: str, task: str, generate: str | None = None) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(SUPPORT),
        "REDIS_URL": redis_url,
        "RECYCLERY_TUNE": "0123456789ab",
    }
    spec = asked(app="tune_app", task=task, generate=generate)
    with closing(TaskSender(spec, environment)) as sender, pytest.raises(TuningFailed) as refused:
        sender.wait_until_ready()
    return str(refused.value)


def test_a_broker_other_than_redis_is_refused() -> None:
    assert "tuning needs Redis" in refusal("memory://", "tune_app.nap", "tune_app:naps")


def test_a_task_that_the_app_does_not_have_is_refused_with_those_alike(fresh_redis: str) -> None:
    assert "it has tune_app.nap" in refusal(fresh_redis, "other.nap")


def test_a_task_that_cannot_be_called_so_is_refused_and_redis_left_alone(fresh_redis: str) -> None:
    assert "--args or --generate" in refusal(fresh_redis, "tune_app.nap")
    with redis.Redis.from_url(fresh_redis) as client:
        assert not content_of(client)
