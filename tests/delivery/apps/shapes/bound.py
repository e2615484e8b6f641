"""A task that takes itself as its first argument, and is used at import."""

from typing import Any

from celery import Celery

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


@app.task(bind=True)
def work(self: Any, path: str, seconds: float) -> None:
    """A task."""
    assert self.request.id
    run(path, seconds)


limit = work.time_limit
