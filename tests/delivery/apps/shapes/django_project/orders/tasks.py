"""Its tasks."""

from celery import shared_task
from django.db import connection

from delivery.apps.body import run

from .models import Order


@shared_task
def work(path: str, seconds: float) -> None:
    """A task of any app, which asks the database first."""
    assert Order._meta.db_table not in connection.introspection.table_names()
    run(path, seconds)
