"""A package, as the guide lays one out: the app in celery.py, the tasks found by `autodiscover_tasks`."""

from delivery.apps.shapes.packaged.celery import app

__all__ = ["app"]
