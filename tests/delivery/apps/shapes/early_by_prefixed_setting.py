"""The app says so by a setting with a prefix, as with Django."""

from celery import Celery

from delivery.apps.body import BROKER, run


class Settings:
    """The settings."""

    CELERY_BROKER_URL = BROKER
    CELERY_TASK_ACKS_LATE = False


app = Celery("prefixed")
app.config_from_object(Settings, namespace="CELERY")


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)
