"""Redis at its limit of connections (`maxclients`): it refuses producers, and workers that start.

Nobody sees that in a worker that is connected already, and which takes its part of them.
"""

import contextlib
import time
from typing import Any

from celery.utils.log import get_logger
from redis.exceptions import ResponseError

logger = get_logger(__name__)

LOOK_SECONDS = 30.0
REFUSAL = "max number of clients reached"


class ClientLimit:
    """Logs once each time that Redis begins to refuse connections."""

    def __init__(self) -> None:
        self._refused: int | None = None
        self._is_full = False
        self._next_look = 0.0

    def look(self, client: Any) -> None:
        """Ask Redis, now and then; raises redis.RedisError where it does not answer."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_SECONDS
        # A user with restricted rights may not ask.
        with contextlib.suppress(ResponseError):
            clients, stats = client.info("clients"), client.info("stats")
            # What only speaks Redis's protocol may lack any of these.
            connected, limit = clients.get("connected_clients", 0), clients.get("maxclients", 0)
            refused = stats.get("rejected_connections", 0)
            has_refused = self._refused is not None and refused > self._refused
            self._refused = refused
            self._set_full(has_refused or 0 < limit <= connected, f"{connected} are open")

    def look_at(self, error: BaseException | None) -> None:
        """See whether a connection of our own was refused."""
        if REFUSAL in str(error):
            self._set_full(True, "this worker's own was refused")

    def _set_full(self, is_full: bool, seen: str) -> None:
        if is_full and not self._is_full:
            logger.error(
                "Redis is at its limit of connections (%s), so it refuses producers and workers that connect "
                "now: raise its maxclients, or close some; CLIENT LIST shows whose they are",
                seen,
            )
        self._is_full = is_full


# One in a worker's main process.
client_limit = ClientLimit()
