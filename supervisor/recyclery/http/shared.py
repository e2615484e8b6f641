"""One value for all who ask for it: made by one at a time, and made anew only when it is old."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """However many look on, and however often, it costs no more than one of them."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> None:
        self._make = make
        self._seconds = seconds
        self._task: asyncio.Task[T] | None = None
        self._begun = 0.0

    async def get(self) -> T:
        """Return it, not much older than so many seconds. Its making goes on when nobody waits any more."""
        now = time.monotonic()
        if self._task is None or (self._task.done() and now - self._begun >= self._seconds):
            self._begun = now
            self._task = asyncio.create_task(self._make())
        return await asyncio.shield(self._task)
