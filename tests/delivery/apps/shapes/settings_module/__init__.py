"""A package whose settings are a module that is named by a text, and which names the tasks' module."""

from celery import Celery

app = Celery("settings")
app.config_from_object("delivery.apps.shapes.settings_module.celeryconfig")
