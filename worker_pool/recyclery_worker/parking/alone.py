"""The task that runs alone in its worker, so that its guilt or innocence shows."""

import time
from typing import Any

from celery.utils.log import get_logger
from celery.worker import state

logger = get_logger(__name__)

# A task that was in the middle of so many deaths of its worker beside others runs alone.
SUSPICIONS = 2
# So long it waits for what runs to end, and then the others for it: any of them may run for hours.
ALONE_SECONDS = 60.0


class Alone:
    """Holds tasks up while one runs alone, or waits until it can; but not those that it may wait for itself."""

    def __init__(self) -> None:
        self._request: Any = None
        self._until = 0.0
        self._has_begun = False
        self._family: set[str] = set()  # Ids of that task, and of what it has called

    def holds_up(self, request: Any, *, is_suspect: bool = False) -> bool:
        """Return whether a task must wait: for the one that runs alone, or until it can do so itself."""
        if self._request is None and not is_suspect:
            return False
        if self._request is request:
            if set(state.active_requests) - {request} and time.monotonic() < self._until:
                return True
            self._begin_wait(has_begun=True)
            return False
        if self._lasts():
            if is_suspect or request.parent_id not in self._family:
                return True
            self._family.add(request.id)
            return False
        self._request = request if is_suspect else None
        if is_suspect:
            self._family = {request.id}
            self._begin_wait(has_begun=False)
            logger.warning(
                "%s[%s] ran in %d workers that died: it runs alone, and the others wait so long",
                *(request.name, request.id, SUSPICIONS),
            )
        # Not at once: what has just been handed to the pool is not active yet.
        return is_suspect

    def _begin_wait(self, *, has_begun: bool) -> None:
        self._has_begun, self._until = has_begun, time.monotonic() + ALONE_SECONDS

    def _lasts(self) -> bool:
        if self._request is None or (self._has_begun and time.monotonic() >= self._until):
            return False
        return self._request in state.reserved_requests or self._request in state.active_requests
