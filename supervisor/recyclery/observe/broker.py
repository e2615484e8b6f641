"""The broker, asked only when there is something to ask: Redis' client costs 10 MB."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from recyclery.config.settings import Pool

if TYPE_CHECKING:
    from recyclery.observe.queues import Queues


class Broker:
    """Blocks while it asks: call it in a thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._queues: Queues | None = None

    def answers(self) -> bool:
        """Tell whether it can be spoken to; true for a broker that is not asked."""
        return self._open().answers()

    def depths(self, pools: Iterable[Pool]) -> dict[str, int | None]:
        """Return how many tasks wait for each pool; None where that cannot be told."""
        queues = self._open()
        return {pool.name: queues.depth(pool.queues) for pool in pools}

    def _open(self) -> Queues:
        if self._queues is None:
            from recyclery.observe.queues import Queues  # noqa: PLC0415

            self._queues = Queues(self._url)
        return self._queues
