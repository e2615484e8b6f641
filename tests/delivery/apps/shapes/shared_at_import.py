"""As with Django: shared tasks, settings with a prefix, and a signature made at import."""

from typing import ClassVar

from celery import Celery, shared_task

from delivery.apps.body import BROKER, run


class Settings:
    """The settings."""

    CELERY_BROKER_URL = BROKER
    CELERY_TASK_IGNORE_RESULT = True
    CELERY_BEAT_SCHEDULE: ClassVar[dict[str, object]] = {}


app = Celery("shared")
app.config_from_object(Settings, namespace="CELERY")


@shared_task
def work(path: str, seconds: float) -> None:
    """A task of any app."""
    run(path, seconds)


again = work.s("/dev/null", 0)
assert again.type.name == work.name
