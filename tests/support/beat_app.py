"""A Celery app with a schedule: the program that sends a task leaves its pid and the task's name in a file."""

import os
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import before_task_publish

app = Celery("beats", broker=os.environ["REDIS_URL"])
app.conf.beat_schedule = {
    "often": {"task": "often", "schedule": 0.5},
    "hourly": {"task": "hourly", "schedule": 3600.0},
}
app.conf.task_routes = {"*": "low"}


@app.task(name="often")
def often() -> None:
    """Do nothing."""


@app.task(name="hourly")
def hourly() -> None:
    """Do nothing."""


@before_task_publish.connect
def note(sender: str, **_: Any) -> None:
    """Leave the sender's pid, and what it sends."""
    with Path(os.environ["SENT"]).open("a") as file:
        file.write(f"{os.getpid()} {sender}\n")
