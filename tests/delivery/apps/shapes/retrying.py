"""A task that is tried again by itself."""

from celery import Celery

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


@app.task(autoretry_for=(OSError,), retry_backoff=True, max_retries=3)
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


tries = work.max_retries
