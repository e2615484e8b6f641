"""The two slots of a pool's worker: its own and a spare one. A successor starts in the free one.

A slot's name is that of supervisord's program, of the node (before the @) and of the link's socket.
"""

from __future__ import annotations

SPARE = "-b"


def slots_of(pool: str) -> tuple[str, str]:
    """Return a pool's own slot and its spare one."""
    return pool, pool + SPARE


def other_slot(pool: str, slot: str) -> str:
    """Return the slot of the pool that is not this one."""
    own, spare = slots_of(pool)
    return spare if slot == own else own
