"""The app says so by a setting of Celery 3."""

from celery import Celery

from delivery.apps.body import BROKER, run


class Settings:
    """The settings."""

    BROKER_URL = BROKER
    CELERY_IGNORE_RESULT = True
    CELERY_ACKS_LATE = False


app = Celery("old")
app.config_from_object(Settings)


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


name = work.name
