"""Settings named as Celery 3 did, and a task that is used at import."""

from celery import Celery

from delivery.apps.body import BROKER, run


class Settings:
    """The settings."""

    BROKER_URL = BROKER
    CELERY_IGNORE_RESULT = True
    CELERY_TRACK_STARTED = True


app = Celery("old")
app.config_from_object(Settings)


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


name = work.name
