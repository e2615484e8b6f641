"""What the tasks of all shapes do."""

import os
import sys
import time
from pathlib import Path

BROKER = os.environ.get("REDIS_URL", "redis://127.0.0.1:1/0")
GROWTH_BYTES = 400 << 20


def run(path: str, seconds: float) -> None:
    """Append a mark to a file as it starts, then sleep; of a folder, play the matrix's task there."""
    if Path(path).is_dir():
        play(Path(path), seconds)
        return
    with Path(path).open("a") as file:
        file.write("x\n")
    time.sleep(seconds)


def play(cell: Path, seconds: float) -> None:
    """Do what the file `act` says until there is a file `gate`; the files `begun` and `ended` tell of it."""
    append_pid(cell / "begun")
    act, gate = (cell / "act").read_text(), cell / "gate"
    held = b""
    if not gate.exists():
        if act == "raise MemoryError":
            raise MemoryError
        if act == "sys.exit":
            sys.exit(1)
        if act == "os._exit":
            os._exit(1)
        if act == "grow" and len((cell / "begun").read_text().split()) == 1:
            held = b"x" * GROWTH_BYTES
            append_pid(cell / "grown")
    until = time.monotonic() + seconds
    while not gate.exists() and time.monotonic() < until:
        time.sleep(0.02)
    del held
    append_pid(cell / "ended")


def append_pid(path: Path) -> None:
    """Append a line, which reaches the file in one piece."""
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")
