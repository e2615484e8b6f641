"""The Celery task that runs in this thread, if any."""

import sys
from typing import Any, NamedTuple


class Running(NamedTuple):
    """A task's name, id and soft time limit in seconds (None: it has none)."""

    name: str
    id: str
    soft_limit_seconds: float | None


def running_task() -> Running | None:
    """Return the task that runs here; None outside of one, and where Celery is not even imported."""
    celery: Any = sys.modules.get("celery")
    task = celery.current_task if celery is not None else None
    if not task or not task.request.id:
        return None
    # (hard, soft) as the sender set them; else the task's own, else the app's (celery/app/task.py).
    _, sent = task.request.timelimit or (None, None)
    soft = sent or task.soft_time_limit or task.app.conf.task_soft_time_limit
    return Running(str(task.name), str(task.request.id), float(soft) if soft else None)
