"""The schedule takes a task's name from the task, at import."""

from celery import Celery

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


app.conf.beat_schedule = {"hourly": {"task": work.name, "schedule": 3600.0, "args": ("/dev/null", 0)}}
