"""The sample app with remote commands that bring about what workers did after a Redis reconnect."""

from typing import Any

from celery.worker.control import control_command
from sample_app import app  # type: ignore[import-not-found]


@control_command()
def go_deaf(state: Any) -> dict[str, str]:
    """Be up, answer, and take no more tasks: nobody asks Redis for them (celery/celery#8030, #8091)."""
    on_tick = state.consumer.hub.on_tick
    on_tick -= {each for each in on_tick if each.__module__.startswith("kombu.")}
    return {"ok": "deaf"}


@control_command()
def forget_limits(state: Any) -> dict[str, str]:
    """Forget the time limits of running tasks (Celery 5.5; celery/celery#10888)."""
    for timer in list(state.consumer.pool._pool._tref_for_id.values()):
        timer.cancel()
    return {"ok": "forgotten"}


__all__ = ["app"]
