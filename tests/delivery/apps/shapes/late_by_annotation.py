"""All tasks are annotated as late, one is used, and only then does the app's own setting say otherwise."""

from celery import Celery

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


app.conf.task_annotations = {"*": {"acks_late": True}}
names = [work.name]
app.conf.task_acks_late = False
