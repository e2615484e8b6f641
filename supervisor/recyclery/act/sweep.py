"""Has swept what nobody owns any more: profiles of `browser()`, what dead Chromes left."""

from __future__ import annotations

import asyncio
import logging

from recyclery.act.abandoned import sweep_abandoned

log = logging.getLogger("recyclery")

EVERY_SECONDS = 10.0


class Sweeper:
    """Sweeps in a thread, beside the ticks, every now and then and when a child has died."""

    def __init__(self) -> None:
        self._due = 0.0
        self._sweeping: asyncio.Task[None] | None = None

    def hurry(self) -> None:
        """Have it done at the next tick."""
        self._due = 0.0

    def begin(self, at: float) -> None:
        """Begin a sweep where one is due and none is under way."""
        if at >= self._due and (self._sweeping is None or self._sweeping.done()):
            self._due = at + EVERY_SECONDS
            self._sweeping = asyncio.create_task(sweep())


async def sweep() -> None:
    """Sweep once."""
    removed = await asyncio.to_thread(sweep_all)
    if removed:
        log.debug("swept %s", ", ".join(map(str, removed)))


def sweep_all() -> list[object]:
    """Remove the profiles whose owner no longer holds their lock, and what Chromes left unseen; return them."""
    from recyclery_worker.browser.profiles import sweep_profiles  # noqa: PLC0415

    return [*sweep_profiles(), *sweep_abandoned()]
