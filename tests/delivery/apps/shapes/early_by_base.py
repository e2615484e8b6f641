"""A base class says that its tasks must not run twice; one of them says otherwise."""

from celery import Celery, Task

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


class Once(Task):  # type: ignore[type-arg]
    """A task that must not run twice."""

    abstract = True
    acks_late = False


@app.task(base=Once)
def once(path: str, seconds: float) -> None:
    """A task that must not run twice, by its class's word."""
    run(path, seconds)


@app.task(base=Once, acks_late=True)
def work(path: str, seconds: float) -> None:
    """A task that may."""
    run(path, seconds)
