"""PID 1's own word on the pools' main processes: supervisord's XML-RPC, and its event protocol on our stdin."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from supervisor.childutils import get_headers
from supervisor.xmlrpc import SupervisorTransport

from recyclery.observe.snapshot import PoolView

STATES = {"STARTING": "starting", "RUNNING": "running", "STOPPING": "stopping", "BACKOFF": "backoff"}


# supervisord's answer to everything once it is stopping (supervisor/xmlrpc.py, Faults).
SHUTDOWN_STATE = 6


class EngineAway(Exception):
    """supervisord did not answer, or is stopping and answers nothing more."""


def ask_engine(socket: Path, method: str, *arguments: str) -> Any:
    """Call one method of supervisord's XML-RPC; blocks for as long as PID 1 takes. Raises EngineAway."""
    proxy = ServerProxy("http://127.0.0.1", transport=SupervisorTransport("", "", f"unix://{socket}"))
    try:
        return getattr(proxy.supervisor, method)(*arguments)
    except Fault as fault:
        raise EngineAway("it is stopping" if fault.faultCode == SHUTDOWN_STATE else str(fault)) from None
    except OSError as error:
        raise EngineAway(str(error)) from None


def list_programs(socket: Path, names: frozenset[str]) -> dict[str, PoolView]:
    """Return the pools' main processes by name. Raises EngineAway."""
    programs = ask_engine(socket, "getAllProcessInfo")
    return {
        program["name"]: PoolView(
            name=program["name"],
            state=STATES.get(program["statename"], program["statename"].lower()),
            pid=program["pid"] or None,
        )
        for program in programs
        if program["name"] in names
    }


async def read_events() -> AsyncIterator[str]:
    """Yield the name of each event, acknowledging it at once: supervisord keeps but ten waiting.

    Ends when supervisord closes our stdin.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while True:
        acknowledge("READY\n")
        header = await reader.readline()
        if not header:
            return
        headers: dict[str, str] = get_headers(header.decode())
        await reader.readexactly(int(headers["len"]))
        acknowledge("RESULT 2\nOK")
        yield headers["eventname"]


def acknowledge(text: str) -> None:
    """Answer supervisord on stdout, which belongs to the protocol."""
    sys.stdout.write(text)
    sys.stdout.flush()
