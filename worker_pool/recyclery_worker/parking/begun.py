"""The task that each pool child has begun, in a file: for whoever finds its worker dead.

A task may end its worker's main process as soon as it runs, before that has written to Redis what runs
(`admission.InFlight`). To write to a mapped file takes a microsecond. It is lost with the container.
"""

import contextlib
import mmap
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from recyclery_worker.link import read_variable
from recyclery_worker.parking.records import StartedRun, name_run

FILE_BYTES = 1024
# The worker whose children record what they begin; empty where nobody would read it.
_recorded = ""


def record_for(worker: str) -> None:
    """Have the children of this worker record under a name what they begin; called before there are any."""
    global _recorded
    _recorded = worker


def recorded_worker() -> str:
    return _recorded


def name_worker() -> str:
    """Return a name for this worker by which others of its container see whether it lives."""
    return f"{os.getpid()}-{read_stat(os.getpid())[19].decode()}"


def list_dead_workers() -> list[str]:
    """Return the names of the workers of this container that are dead and had children."""
    root = begun_folder("")
    return [path.name for path in root.glob("*-*") if is_worker_dead(path.name)] if root.is_dir() else []


def is_worker_dead(worker: str) -> bool:
    pid, _, start_ticks = worker.partition("-")
    with contextlib.suppress(OSError):
        state, *fields = read_stat(int(pid))
        return state in {b"Z", b"X"} or fields[18].decode() != start_ticks
    return True


def read_stat(pid: int) -> list[bytes]:
    """Return what /proc tells of a process, from its state on (proc(5), field 3)."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def begun_folder(generation_id: str) -> Path:
    return Path(read_variable("RECYCLERY_RUNTIME_DIR"), "begun", generation_id)


class BegunTask:
    """The file of one pool child, blank while it has no task; without a place to write, nothing is written."""

    def __init__(self, generation_id: str) -> None:
        self._path = begun_folder(generation_id) / str(os.getpid())
        # RabbitMQ tells a child no delivery tag; a child dies once.
        self._name = f"{generation_id}.{os.getpid()}"
        self._content: mmap.mmap | None = None
        self._has_task = False
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._path.open("w+b") as file:
                # So that a full disk is noticed here: a write to what has no place on it would end the child.
                os.posix_fallocate(file.fileno(), 0, FILE_BYTES)
                self._content = mmap.mmap(file.fileno(), FILE_BYTES)

    def start(self, task_id: str, request: Any) -> None:
        """Record that a task begins, by the arguments of Celery's tracer."""
        properties = request.get("properties") if isinstance(request, dict) else None
        tag = properties.get("delivery_tag", self._name) if isinstance(properties, dict) else None
        if self._content is not None and isinstance(tag, str) and isinstance(task_id, str):
            entry = msgspec.json.encode((tag, StartedRun(name_run(tag), task_id, os.getpid())))
            if len(entry) <= FILE_BYTES:
                self._content[:] = entry.ljust(FILE_BYTES)
                self._has_task = True

    def end(self) -> None:
        if self._content is not None and self._has_task:
            self._content[:] = b" " * FILE_BYTES
            self._has_task = False

    def close(self) -> None:
        """Remove the file, but not that of a child that leaves in the middle of a task."""
        if not self._has_task:
            self._path.unlink(missing_ok=True)


def read_begun(generation_id: str) -> dict[str, StartedRun]:
    """Return what the children of a worker of this container had begun, by delivery tag."""
    begun = {}
    if read_variable("RECYCLERY_RUNTIME_DIR"):
        for path in begun_folder(generation_id).glob("*"):
            with contextlib.suppress(OSError, msgspec.DecodeError):
                tag, run = msgspec.json.decode(path.read_bytes(), type=tuple[str, StartedRun])
                begun[tag] = run
    return begun


def forget_child(generation_id: str, pid: int) -> None:
    """Remove the file of a child that has ended, in the middle of a task or not."""
    with contextlib.suppress(OSError):
        (begun_folder(generation_id) / str(pid)).unlink()


def forget_begun(generation_id: str) -> None:
    if read_variable("RECYCLERY_RUNTIME_DIR"):
        shutil.rmtree(begun_folder(generation_id), ignore_errors=True)
