"""PID 1's status of the main processes: supervisord's XML-RPC, and its event protocol on our stdin."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from supervisor.childutils import get_headers, listener
from supervisor.xmlrpc import SupervisorTransport, UnixStreamHTTPConnection

from recyclery.common.pool_state import PoolState
from recyclery.observe.snapshot import PoolView
from recyclery_worker.link import now

SUPERVISORD_ANSWER_SECONDS = 5.0
# Fault code of every call while supervisord is stopping (supervisor/xmlrpc.py, Faults).
SHUTDOWN_STATE = 6


class SupervisordUnavailable(Exception):
    """supervisord did not answer in time, or is stopping."""


class Connection(UnixStreamHTTPConnection):  # type: ignore[misc]
    """supervisor's connection with a timeout: without one, a PID 1 that is stopped would block us."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self.socketfile = str(path)

    def connect(self) -> None:
        """Connect, and wait for no answer longer than SUPERVISORD_ANSWER_SECONDS."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SUPERVISORD_ANSWER_SECONDS)
        self.sock.connect(self.socketfile)


def call_supervisord(path: Path, method: str, *arguments: str | bool) -> Any:
    """Call one method, such as supervisor.getPID, of the XML-RPC on PID 1's socket; blocks while it answers.

    Raises SupervisordUnavailable.
    """
    transport = SupervisorTransport("", "", f"unix://{path}")
    transport._get_connection = lambda: Connection(path)
    try:
        return getattr(ServerProxy("http://127.0.0.1", transport), method)(*arguments)
    except Fault as fault:
        reason = "it is stopping" if fault.faultCode == SHUTDOWN_STATE else str(fault)
        raise SupervisordUnavailable(reason) from None
    except OSError as error:
        raise SupervisordUnavailable(str(error)) from None


def list_workers(path: Path) -> dict[str, PoolView]:
    """Return what PID 1 knows of the workers, by slot; raises SupervisordUnavailable."""
    workers = call_supervisord(path, "recyclery.list_workers")
    at = now()
    return {
        worker["slot"]: PoolView(
            name=worker["pool"],
            state=PoolState(worker["state"]),
            pid=worker["pid"] or None,
            slot=worker["slot"],
            started=at - worker["age_seconds"],
            forks=worker["forks"],
            outdated=worker["outdated"],
            end=worker["end"],
            keeps_dying=worker["keeps_dying"],
        )
        for worker in workers
    }


async def read_events() -> AsyncIterator[str]:
    """Yield each event's name until stdin closes; answer on stdout at once: supervisord buffers only ten."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while True:
        listener.ready(sys.stdout)
        header = await reader.readline()
        if not header:
            return
        headers: dict[str, str] = get_headers(header.decode())
        await reader.readexactly(int(headers["len"]))
        listener.ok(sys.stdout)
        yield headers["eventname"]
