"""The tasks."""

from delivery.apps.body import run

from .celery import app


@app.task
def work(path: str, seconds: float) -> None:
    """A task of this app."""
    run(path, seconds)
