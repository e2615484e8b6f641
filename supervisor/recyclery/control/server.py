"""The control socket: one line of JSON in, one line of JSON out, for the user who runs the supervisor."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

ASK_SECONDS = 5.0
MAX_LINE_BYTES = 1 << 20


class Command(msgspec.Struct, forbid_unknown_fields=True):
    """A command, its `table` (as in `recyclery set`; mostly a pool) and `values`; `strangers`: see `reap`."""

    command: str
    table: str = ""
    values: dict[str, str] = msgspec.field(default_factory=dict)
    strangers: bool = False


class SetResult(msgspec.Struct):
    """What was changed, in words."""

    done: str


class ReapResult(msgspec.Struct):
    """What was killed, in words, and how many browsers are in use or foreign (started by no pool)."""

    killed: list[str]
    in_use: int
    strangers: int


class ErrorResult(msgspec.Struct):
    """Why a command was refused."""

    error: str


def control_socket(runtime_dir: Path) -> Path:
    return runtime_dir / "control.sock"


CommandHandler = Callable[[Command], Awaitable[Any]]


async def serve_control(path: Path, handlers: Mapping[str, CommandHandler]) -> asyncio.Server:
    """Serve commands on the socket, 0600; raises OSError when it cannot be bound."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                line = await reader.readline()
                writer.write(msgspec.json.encode(await handle_line(line, handlers)) + b"\n")
                await writer.drain()
        except (TimeoutError, ValueError, ConnectionError):
            pass
        finally:
            writer.close()

    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(answer, path=path, limit=MAX_LINE_BYTES)
    path.chmod(0o600)
    return server


async def handle_line(line: bytes, handlers: Mapping[str, CommandHandler]) -> Any:
    try:
        request = msgspec.json.decode(line, type=Command)
    except msgspec.DecodeError as error:
        return ErrorResult(error=f"not a command: {error}")
    handler = handlers.get(request.command)
    if handler is None:
        return ErrorResult(error=f"{request.command!r} is not a command: there are {', '.join(handlers)}")
    return await handler(request)
