"""The app."""

from celery import Celery

from delivery.apps.body import BROKER

app = Celery("shop", broker=BROKER)
app.autodiscover_tasks(["shop"])
