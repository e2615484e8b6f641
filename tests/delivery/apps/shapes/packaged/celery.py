"""The app, with a schedule that names its task by a text."""

from celery import Celery

from delivery.apps.body import BROKER

app = Celery("packaged", broker=BROKER)
app.conf.beat_schedule = {
    "hourly": {"task": "delivery.apps.shapes.packaged.tasks.work", "schedule": 3600.0, "args": ("/dev/null", 0)}
}
app.autodiscover_tasks(["delivery.apps.shapes.packaged"])
