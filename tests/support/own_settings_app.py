"""A Celery app whose user has said otherwise of all that is set for safety."""

import os

from celery import Celery

url = os.environ["REDIS_URL"]
app = Celery("own", broker=url, backend=url)
app.conf.update(
    task_acks_late=False,
    task_reject_on_worker_lost=False,
    worker_prefetch_multiplier=3,
    broker_transport_options={"unacked_key": "mine", "visibility_timeout": 77},
    broker_connection_retry_on_startup=True,
)
