"""What a child that traces says on the socket of whoever waits for it: a line of JSON after each run."""

from __future__ import annotations

import msgspec


class Frame(msgspec.Struct, frozen=True):
    """A place in the code. `function` is empty where the tracer does not tell it."""

    file: str
    line: int
    function: str = ""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where memory was allocated that is still held: the frames from the allocation outwards."""

    frames: list[Frame]
    bytes_per_run: float
    count_per_run: float
    grew_in: int
    """In how many runs more was held after it than before."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """All that was seen so far: the next makes good a lost one."""

    pid: int
    tool: str
    """`tracemalloc` or `memray`."""
    warm_up_seconds: list[float]
    seconds: list[float]
    """How long each run took that is judged."""
    judged: int = 0
    """Of these runs, how many the sites are told from."""
    sites: list[Site] = []
    """Largest growth first, of those that grew in most runs."""
    over: bool = False


def encode_seen(seen: Seen) -> bytes:
    """Return what was seen as one line."""
    return msgspec.json.encode(seen) + b"\n"


def decode_seen(line: bytes) -> Seen:
    """Return what was seen; raises msgspec.DecodeError for anything else."""
    return msgspec.json.decode(line, type=Seen)
