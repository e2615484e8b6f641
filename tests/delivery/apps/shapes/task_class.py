"""The app names a task class for all its tasks."""

from celery import Celery, Task

from delivery.apps.body import BROKER, run


class Base(Task):  # type: ignore[type-arg]
    """What all tasks of this app are."""


app = Celery(broker=BROKER, task_cls=Base)


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


assert app.Task.name is None
name = work.name
