"""The app: Django's settings with a prefix, named in the environment, and the tasks of what is installed."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "delivery.apps.shapes.django_project.settings")

app = Celery("django_project")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
