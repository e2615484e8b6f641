"""What a pool child has started, seen from outside."""

import os
from pathlib import Path

from support.waiting import is_alive


def started_by(child: int) -> list[int]:
    """Return the living processes of a child's session, and those that bear its marker, but not itself."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            in_session = os.getsid(pid) == child
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        marked = any(
            name == b"RECYCLERY_CHILD" and value.split(b"/")[2:3] == [str(child).encode()]
            for name, _, value in (variable.partition(b"=") for variable in variables)
        )
        if (in_session or marked) and pid != child and is_alive(pid):
            found.append(pid)
    return found
