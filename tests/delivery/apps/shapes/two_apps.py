"""A second app takes the shared tasks first."""

from celery import Celery, shared_task

from delivery.apps.body import BROKER, run

other = Celery("other", broker=BROKER)


@shared_task
def work(path: str, seconds: float) -> None:
    """A task of any app."""
    run(path, seconds)


other.finalize()
app = Celery("main", broker=BROKER)
