"""Task classes that say themselves which settings they take over."""

from celery import Celery, Task

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


class Longer(Task):  # type: ignore[type-arg]
    """What takes over one more."""

    from_config = (*Task.from_config, ("region", "task_default_queue"))
    region = None


class Shorter(Task):  # type: ignore[type-arg]
    """What takes over little."""

    from_config = (("serializer", "task_serializer"),)


@app.task(base=Longer)
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


@app.task(base=Shorter)
def other(path: str, seconds: float) -> None:
    """Another."""
    run(path, seconds)
