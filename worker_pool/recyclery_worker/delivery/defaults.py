"""Settings without which a task is lost with its worker; the user's own stand above them."""

from __future__ import annotations

from typing import Any

# With these a task is acknowledged when it is done, and given back when its process dies before that. One that
# must not run twice says acks_late=False itself.
SAFE = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    # A worker that has more in hand than it runs makes others wait, and has more to give back.
    "worker_prefetch_multiplier": 1,
}
# A worker's death is told by its lease. By this timeout, an hour if nobody says otherwise, the broker would
# give away a task that still runs.
VISIBILITY_SECONDS = 30 * 24 * 3600


def set_defaults(app: Any) -> list[str]:
    """Set on an app what its user has not; return the names of those set."""
    # Until it is first read, an app's configuration is not there, and the user's part cannot be told.
    app.conf.get("task_acks_late")
    missing = [name for name in SAFE if not is_set(app.conf, name)]
    for name in missing:
        app.conf[name] = SAFE[name]
    return missing


def is_set(conf: Any, name: str) -> bool:
    """Tell whether a setting is the user's, under any of the names that Celery takes it by."""
    keys = getattr(conf, "_keys", None)
    if keys is None:
        return bool(conf.value_set_for(name))
    # The last map holds Celery's own defaults (celery/app/utils.py, Settings.without_defaults).
    return name in type(conf)({}, conf.maps[:-1], keys, conf.prefix)


def outlive_refusals(app: Any) -> None:
    """Have Celery connect again when Redis refuses a command, where the user has not said otherwise.

    By default that ends the worker: a failover in which the old master is made a replica kills all of them.
    """
    with app.connection_for_read() as connection:
        is_redis = connection.transport.driver_type == "redis"
    if is_redis and not is_set(app.conf, "broker_channel_error_retry"):
        app.conf.broker_channel_error_retry = True
