"""A base class for tasks, which is bound to the app before any task is."""

from celery import Celery, Task

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


class Base(Task):  # type: ignore[type-arg]
    """What all tasks of this app are."""

    abstract = True


Base.bind(app)


@app.task(base=Base)
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)
