"""The listening socket for HTTP: PID 1 tries to open it, the governor serves on it."""

from __future__ import annotations

import socket

from recyclery.config.settings import Address

BACKLOG = 64


def open_listener(address: Address) -> socket.socket:
    """Listen on the address, for IPv4 and IPv6 where it names no host; raises OSError."""
    if not address.host and socket.has_dualstack_ipv6():
        where = ("", address.port)
        return socket.create_server(where, family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
