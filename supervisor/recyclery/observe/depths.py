"""How many tasks wait for each pool: by its worker's own word, which costs nothing, else by the broker's."""

from __future__ import annotations

from collections.abc import Iterable

from recyclery.config.settings import Pool
from recyclery.observe.broker import Broker
from recyclery.observe.snapshot import Snapshot


def read_depths(pools: Iterable[Pool], snapshot: Snapshot, broker: Broker) -> dict[str, int | None]:
    """Return the depths by pool, None where nobody knows; may ask the broker, so not on the loop."""
    told = {view.name: view.queue_depth for view in snapshot.pools if view.queue_depth is not None}
    silent = [pool for pool in pools if pool.name not in told]
    return told | (broker.depths(silent) if silent else {})
