"""The app of the worker of Celery's integration tests, as their conftest.py has it."""

import os
from typing import Any

from celery.contrib.testing.app import TestApp

app = TestApp(
    set_as_current=True,
    enable_logging=True,
    include=["t.integration.tasks"],
    config={
        "broker_url": os.environ["TEST_BROKER"],
        "result_backend": os.environ["TEST_BACKEND"],
        "result_extended": True,
        "task_create_missing_queues": False,
    },
)
app.set_default()


@app.on_after_finalize.connect
def register_class_tasks(**_: Any) -> None:
    """Add what is no shared task."""
    from t.integration.tasks import ClassBasedAutoRetryTask  # it needs an app

    app.register_task(ClassBasedAutoRetryTask)
