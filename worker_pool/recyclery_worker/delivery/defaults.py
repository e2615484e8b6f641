"""Settings that protect tasks and workers from the death of others; those that the user has set stay."""

from typing import Any

from recyclery_worker.broker.connection import broker_kind

# With these a task is acknowledged when it is done, and given back when its process dies before that. A task
# that must not run twice has acks_late=False.
SAFE = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    # A worker that holds more messages than it runs keeps them from others, and has more to give back.
    "worker_prefetch_multiplier": 1,
}
# A dead worker is detected by its lease. At this timeout, an hour by default, the broker would give away a task
# that still runs.
VISIBILITY_SECONDS = 30 * 24 * 3600


def set_defaults(app: Any) -> list[str]:
    """Set on an app what its user has not set; return the names of those settings."""
    # An app's configuration is loaded when it is first read; until then the user's part cannot be told apart.
    app.conf.get("task_acks_late")
    missing = [name for name in SAFE if not is_set(app.conf, name)]
    for name in missing:
        app.conf[name] = SAFE[name]
    return missing


def is_set(conf: Any, name: str) -> bool:
    """Return whether the user has set a setting, under any of the names that Celery knows it by."""
    keys = getattr(conf, "_keys", None)
    if keys is None:
        return bool(conf.value_set_for(name))
    # The last map holds Celery's own defaults (celery/app/utils.py, Settings.without_defaults).
    return name in type(conf)({}, conf.maps[:-1], keys, conf.prefix)


def survive_refusals(app: Any) -> None:
    """Have Celery reconnect when Redis refuses a command, unless the user has set otherwise."""
    # By default that ends the worker: a failover that makes the old master a replica would end all workers.
    if broker_kind(app) == "redis" and not is_set(app.conf, "broker_channel_error_retry"):
        app.conf.broker_channel_error_retry = True
