"""What an app does to its environment or its input costs the worker nothing."""

from pathlib import Path

import redis
from celery import Celery

from recyclery_worker.parking.records import DeadLetterStore
from support.bare_worker import bare_worker
from support.supervised import supervised
from support.waiting import wait_for

APP = """
import os
from pathlib import Path
from celery import Celery, signals

app = Celery(broker=os.environ["REDIS_URL"])
os.environ.clear()

@signals.worker_init.connect
def forget(**_):
    os.environ = {}

@app.task(name="die")
def die(path):
    Path(path).write_text(os.environ["RECYCLERY_CHILD"])
    os._exit(1)
"""


def test_a_worker_whose_app_clears_the_environment_knows_its_pool_and_its_limits(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    (tmp_path / "forgetful.py").write_text(APP)
    mark = tmp_path / "mark"
    with (
        bare_worker(
            fresh_redis, app="forgetful", max_task_deaths=1, environment={"PYTHONPATH": str(tmp_path)}
        ) as worker,
        redis.Redis.from_url(fresh_redis) as client,
    ):
        assert worker.stat().pool == "slow"
        task = sender.send_task("die", (str(mark),), queue="low")
        store = DeadLetterStore(client)
        wait_for(lambda: [each.task_id for each in store.list_parked()] == [task.id], "it is parked")
    assert mark.read_text().split("/")[1] == "slow"


def test_an_app_that_reads_its_input_finds_the_end_there(fresh_redis: str, tmp_path: Path) -> None:
    (tmp_path / "reads.py").write_text("from celery import Celery\nopen(0).read()\napp = Celery()\n")
    environment = {"CELERY_APP": "reads", "CELERY_BROKER_URL": fresh_redis, "PYTHONPATH": str(tmp_path)}
    with supervised("--pool", "slow", redis_url=fresh_redis, environment=environment) as running:
        running.wait_until_ready("slow")
