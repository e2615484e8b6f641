"""The tasks."""

from celery import shared_task

from delivery.apps.body import run
from delivery.apps.shapes.packaged.celery import app


@shared_task
def work(path: str, seconds: float) -> None:
    """A task of any app."""
    run(path, seconds)


@app.task
def further(path: str, seconds: float) -> None:
    """A task of this app."""
    run(path, seconds)


again = work.s("/dev/null", 0)
