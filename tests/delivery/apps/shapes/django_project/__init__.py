"""A Django project, as Celery's guide lays one out: the app in celery.py, shared tasks in Django's apps."""

from .celery import app as celery_app

__all__ = ("celery_app",)
