"""Who may read what is not open: everybody on loopback, elsewhere whoever has the token.

The token comes from the environment alone, and is asked for in a header alone: files, URLs and logs are read by
too many.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from http import HTTPStatus

import h11

from recyclery.config.secrets import TOKEN
from recyclery.config.settings import Address
from recyclery.serve.http import Answer, Handler

SCHEME = b"bearer"
UNSET = (
    f"this address is not loopback and no token is set: set {TOKEN} to a long random text where "
    "`recyclery run` starts, and send `Authorization: Bearer` with it; or serve on 127.0.0.1\n"
)
WRONG = f"send the header `Authorization: Bearer` with what {TOKEN} is\n"


def guard(handlers: Mapping[str, Handler], address: Address, token: str) -> Mapping[str, Handler]:
    """Return the handlers, each of which answers only who may read it at this address."""
    if is_loopback(address):
        return handlers
    return {path: guarded(handler, token) for path, handler in handlers.items()}


def is_loopback(address: Address) -> bool:
    """Tell whether only this machine reaches the address."""
    if address.host in {"", "localhost"}:
        return bool(address.host)
    return ipaddress.ip_address(address.host).is_loopback


def guarded(handler: Handler, token: str) -> Handler:
    """Return the handler behind the token."""

    async def answer(request: h11.Request) -> Answer:
        if not token:
            return Answer(HTTPStatus.FORBIDDEN, UNSET)
        if not hmac.compare_digest(sent_token(request), token.encode()):
            return Answer(HTTPStatus.UNAUTHORIZED, WRONG, {"WWW-Authenticate": 'Bearer realm="recyclery"'})
        return await handler(request)

    return answer


def sent_token(request: h11.Request) -> bytes:
    """Return the token that a request brings; empty where it brings none."""
    given = next((value for name, value in request.headers if name == b"authorization"), b"")
    scheme, _, token = given.partition(b" ")
    return token.strip() if scheme.lower() == SCHEME else b""
