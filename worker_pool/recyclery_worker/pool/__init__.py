"""The worker's pool, named to Celery by CELERY_CUSTOM_WORKER_POOL and `-P custom`.

`recyclery_worker.pool:TaskPool` is our prefork pool, or Celery's own where a private name that ours uses is
missing. `recyclery_worker.pool:threads`, `:solo` and so on are Celery's other pools: Celery imports a custom
pool, and so this package, before its tasks copy the app's settings. With a built-in pool it would be too late.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """Return a pool class, imported on demand: `pool.child` is used in processes without Celery too."""
    from celery.concurrency import get_available_pool_names, get_implementation  # noqa: PLC0415

    if name != "TaskPool":
        if name in get_available_pool_names():
            return get_implementation(name)
        raise AttributeError(name)
    from recyclery_worker.compat import missing  # noqa: PLC0415

    if missing("pool"):
        return get_implementation("prefork")
    from recyclery_worker.pool.prefork import TaskPool  # noqa: PLC0415

    return TaskPool
