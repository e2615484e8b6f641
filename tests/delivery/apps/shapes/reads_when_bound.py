"""A base class that reads what its tasks took over, as they are bound."""

from typing import Any

from celery import Celery, Task

from delivery.apps.body import BROKER, run


class Base(Task):  # type: ignore[type-arg]
    """What cannot be without a value, as Celery alone has one."""

    abstract = True

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Called by Celery."""
        assert cls.acks_late in (True, False)


app = Celery(broker=BROKER, task_cls=Base)


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


name = work.name
