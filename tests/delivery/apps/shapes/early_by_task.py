"""One of two tasks must not run twice, and says so."""

from celery import Celery

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


@app.task(acks_late=False)
def once(path: str, seconds: float) -> None:
    """A task that must not run twice."""
    run(path, seconds)


names = (work.name, once.name)
