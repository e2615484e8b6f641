"""Routes name their task by the task itself, at import."""

from celery import Celery

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


app.conf.task_routes = {work.name: {"queue": "low"}}
