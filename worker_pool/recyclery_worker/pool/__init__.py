"""The worker's pool, named to Celery by CELERY_CUSTOM_WORKER_POOL and `-P custom`.

`recyclery_worker.pool:TaskPool` is our prefork pool, or Celery's own where a private part that ours uses is
missing. `recyclery_worker.pool:threads`, `:solo` and so on are other pools of Celery. It imports a custom pool,
and so us, before its tasks copy the settings of the app; a built-in pool it would import without us.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """Return a pool class; imported on demand, for a process without Celery imports submodules of this too."""
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
