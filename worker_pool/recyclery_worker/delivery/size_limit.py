"""How large a message may be: a tenth of the memory limit, as it is copied several times until its task runs.

A larger one is parked by Redis itself and never received, so that it costs no worker's memory.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from recyclery_worker.link import read_variable
from recyclery_worker.parking.records import ParkedTask

SHARE = 10
UNREAD = "(unread)"


class MemorySettings(msgspec.Struct, frozen=True):
    limit_bytes: int | None = None


class LimitSettings(msgspec.Struct, frozen=True):
    memory: MemorySettings = MemorySettings()


def largest_message_bytes() -> int:
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *read_cgroup_limits()]
    with suppress(OSError, msgspec.DecodeError):
        content = Path(read_variable("RECYCLERY_RUNTIME_DIR"), "settings.json").read_bytes()
        if (stated := msgspec.json.decode(content, type=LimitSettings).memory.limit_bytes) is not None:
            limits.append(stated)
    return min(limits) // SHARE


def read_cgroup_limits(
    proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """Yield the memory limits of our cgroup and those above it, v1 or v2."""
    with suppress(OSError):
        for line in proc.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                top, name = root, "memory.max"
            elif "memory" in controllers.split(","):
                top, name = root / "memory", "memory.limit_in_bytes"
            else:
                continue
            folder = top / path.lstrip("/")
            for level in (folder, *folder.parents):
                if level.is_relative_to(top):
                    # "max" is no limit.
                    with suppress(OSError, ValueError):
                        yield int((level / name).read_text(encoding="ascii"))


def unread_task(node: str, most_bytes: int) -> bytes:
    """Return what Redis parks for a message that is too large: it puts in its size and where it was."""
    limit = f"a tenth of the memory limit, {most_bytes} bytes"
    task = ParkedTask(
        tag="",
        task_id="",
        name=UNREAD,
        type=UNREAD,
        arguments="?",
        at=0.0,
        node=node,
        queues=[],
        keys=[],
        message=msgspec.Raw(b"null"),
        reason=f"its %d bytes are more than {limit}",
        is_unread=True,
    )
    return msgspec.json.encode(task)
