"""Queues with exchanges and priorities, results over rpc."""

from celery import Celery
from kombu import Exchange, Queue

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER, backend="rpc://")
app.conf.update(
    task_queues=[Queue("low", Exchange("jobs", type="topic"), routing_key="jobs.#", max_priority=9)],
    broker_transport_options={"queue_order_strategy": "priority", "priority_steps": [0, 3, 6, 9]},
    task_default_priority=6,
)


@app.task(priority=3)
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


app.conf.task_routes = [{work.name: {"queue": "low", "routing_key": "jobs.work"}}]
