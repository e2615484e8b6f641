"""A class-based task, registered at import."""

from celery import Celery, Task

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


class Work(Task):  # type: ignore[type-arg]
    """A task."""

    name = "class_based.work"

    def run(self, path: str, seconds: float) -> None:
        """Run it."""
        run(path, seconds)


work = app.register_task(Work())
