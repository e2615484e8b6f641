"""The sample app with a remote command after which a worker is up, answers, and takes no more tasks.

What workers did after a Redis reconnect (celery/celery#8030, #8091): the loop turns, but nobody asks for tasks.
"""

from typing import Any

from celery.worker.control import control_command

from support.sample_app import app


@control_command()
def go_deaf(state: Any) -> dict[str, str]:
    """Forget to ask Redis for messages from the loop's next turn on."""
    on_tick = state.consumer.hub.on_tick
    on_tick -= {each for each in on_tick if each.__module__.startswith("kombu.")}
    return {"ok": "deaf"}


__all__ = ["app"]
