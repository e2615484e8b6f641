"""The settings of one task are annotated from outside."""

from celery import Celery

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


@app.task
def once(path: str, seconds: float) -> None:
    """A task that must not run twice, by the app's word."""
    run(path, seconds)


app.conf.task_annotations = {"delivery.apps.shapes.early_by_annotation.once": {"acks_late": False}}
