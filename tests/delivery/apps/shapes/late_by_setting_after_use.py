"""The app says that its tasks are late, when it has used one already."""

from celery import Celery

from delivery.apps.body import BROKER, run

app = Celery(broker=BROKER)


@app.task
def work(path: str, seconds: float) -> None:
    """A task."""
    run(path, seconds)


app.conf.task_acks_late = False
names = [work.name]
app.conf.task_acks_late = True
