"""The client of the control socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from recyclery.control.server import ASK_SECONDS, control_socket


class NoSupervisor(Exception):
    """Nobody answers on the control socket; the message has its path."""


class Declined(Exception):
    """The supervisor refused a command or failed in it; the message says why."""


def ask_governor(runtime_dir: Path, command: str, **arguments: Any) -> dict[str, Any]:
    """Return the answer to one command; raises NoSupervisor or Declined."""
    path = control_socket(runtime_dir)
    request = json.dumps({"command": command, **arguments})
    try:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(2 * ASK_SECONDS)
            control.connect(str(path))
            control.sendall(request.encode() + b"\n")
            with control.makefile("rb") as answer:
                document: dict[str, Any] = json.loads(answer.readline())
    except (OSError, ValueError) as error:
        raise NoSupervisor(
            f"no supervisor answers on {path} ({error}): is `recyclery run` up, "
            "and RECYCLERY_RUNTIME_DIR the same here as there?"
        ) from None
    if "error" in document:
        raise Declined(document["error"])
    return document
