"""Django's settings, with Celery's among them."""

from delivery.apps.body import BROKER

SECRET_KEY = "for tests"
USE_TZ = True
INSTALLED_APPS = ["delivery.apps.shapes.django_project.orders"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}

CELERY_BROKER_URL = BROKER
CELERY_TASK_TRACK_STARTED = True
CELERY_BEAT_SCHEDULE = {
    "hourly": {
        "task": "delivery.apps.shapes.django_project.orders.tasks.work",
        "schedule": 3600.0,
        "args": ("/dev/null", 0),
    }
}
