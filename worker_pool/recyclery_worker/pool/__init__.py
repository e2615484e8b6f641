"""The worker's pool, named to Celery by CELERY_CUSTOM_WORKER_POOL and `-P custom`.

`recyclery_worker.pool:TaskPool` is our prefork pool, or Celery's own where a private name that ours uses is
missing.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """Return the pool class, imported on demand: `pool.child` is used in processes without Celery too."""
    if name != "TaskPool":
        raise AttributeError(name)
    from recyclery_worker.compat import missing  # noqa: PLC0415

    if missing("pool"):
        from celery.concurrency import get_implementation  # noqa: PLC0415

        return get_implementation("prefork")
    from recyclery_worker.pool.prefork import TaskPool  # noqa: PLC0415

    return TaskPool
