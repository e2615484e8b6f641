"""Something looks at every attribute of Celery's own task class, which binds it."""

import inspect

from celery import Celery, Task

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)
members = inspect.getmembers(Task)


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)
