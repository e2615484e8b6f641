"""Asks a worker's main process over its link; a worker that does not answer in time costs nothing more."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import msgspec

from recyclery_worker.link import MAX_PACKET_BYTES, Reply, Request, decode_reply, encode, worker_socket

ANSWER_SECONDS = 2.0


class NoAnswer(Exception):
    """The worker is not there, busy with its broker, or said what cannot be read."""


async def ask_worker(runtime_dir: Path, slot: str, request: Request) -> Reply:
    """Send one request to the worker in `slot` and return its reply; raises NoAnswer."""
    loop = asyncio.get_running_loop()
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    with link:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await loop.sock_connect(link, str(worker_socket(runtime_dir, slot)))
                await loop.sock_sendall(link, encode(request))
                return decode_reply(await loop.sock_recv(link, MAX_PACKET_BYTES))
        except (OSError, TimeoutError, msgspec.DecodeError) as error:
            raise NoAnswer(f"{slot}: {str(error) or 'no answer in time'}") from None
