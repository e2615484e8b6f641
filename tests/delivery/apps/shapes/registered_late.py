"""Tasks that are made when the worker has been set up."""

from typing import Any

from celery import Celery, Task, signals

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


class Base(Task):  # type: ignore[type-arg]
    """What takes over one setting more."""

    from_config = (*Task.from_config, ("region", "task_default_queue"))
    region = None


def work(path: str, seconds: float) -> None:
    """A task, later."""
    run(path, seconds)


@signals.celeryd_after_setup.connect
def register(**_: Any) -> None:
    """Called by Celery."""
    app.task(work)
    app.task(base=Base, name="another")(work)
