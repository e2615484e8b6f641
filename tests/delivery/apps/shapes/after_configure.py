"""Celery's first example of a periodic task."""

from celery import Celery

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


@app.on_after_configure.connect
def schedule(sender: Celery, **_: object) -> None:
    """Add the periodic task as soon as the settings are read, which is before the worker's own code."""
    sender.add_periodic_task(3600.0, work.s("/dev/null", 0))


app.conf.task_track_started = True
assert app.conf.enable_utc
