"""A task says itself that it is late, in an app that says otherwise."""

from celery import Celery

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)
app.conf.task_acks_late = False


@app.task(acks_late=True, reject_on_worker_lost=True)
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


@app.task
def once(path: str, seconds: float) -> None:
    """A task that must not run twice, by the app's word."""
    run(path, seconds)


name = work.name
