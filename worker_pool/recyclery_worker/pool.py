"""The pool that `celery worker -P custom` gets, by CELERY_CUSTOM_WORKER_POOL=recyclery_worker.pool:TaskPool.

Ours, or Celery's own where a private part that ours rests on is not there.
"""

from __future__ import annotations

from recyclery_worker.hooks import missing_hooks

if missing_hooks():
    from celery.concurrency.prefork import TaskPool
else:
    from recyclery_worker.task_pool import TaskPool

__all__ = ["TaskPool"]
