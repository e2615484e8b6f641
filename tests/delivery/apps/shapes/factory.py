"""The app is made by a function, its settings are an object."""

from celery import Celery

from delivery.apps.body import BROKER, run


class Settings:
    """The settings."""

    broker_url = BROKER
    task_ignore_result = True


def create_app() -> Celery:
    """Make the app."""
    created = Celery("factory")
    created.config_from_object(Settings)
    created.conf.update(task_track_started=True)
    return created


app = create_app()


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


name = work.name
