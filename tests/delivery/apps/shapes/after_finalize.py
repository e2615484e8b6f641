"""The periodic task is added when the app is complete."""

from celery import Celery

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


@app.on_after_finalize.connect
def schedule(sender: Celery, **_: object) -> None:
    """Add the periodic task."""
    sender.add_periodic_task(3600.0, work.s("/dev/null", 0))
