"""A task that is made as it is defined, not at its first use."""

from celery import Celery

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


@app.task(lazy=False)
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)
