"""The app's own code reads the settings, changes others, and uses its task."""

from celery import Celery

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


assert app.conf.worker_concurrency is None
app.conf.task_routes = {work.name: {"queue": "low"}}
app.conf.task_time_limit = 300
