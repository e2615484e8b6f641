"""Who may read what is not open: everybody on loopback, elsewhere whoever has the token.

The token comes from the environment alone, and is asked for in a header alone: files, URLs and logs are read by
too many. A browser shows instead that it once had it: session.py. On loopback a page of another site could ask
by a name of its own that it has let point here, so only the names of this machine are answered there.
"""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections.abc import Mapping
from http import HTTPStatus

import h11

from recyclery.config.secrets import TOKEN
from recyclery.config.settings import Address
from recyclery.http.server import Answer, Handler, find_header
from recyclery.http.session import is_signed_in

SCHEME = b"bearer"
UNSET = (
    f"this address is not loopback and no token is set: set {TOKEN} to a long random text where "
    "`recyclery run` starts, and send `Authorization: Bearer` with it; or serve on 127.0.0.1\n"
)
STRANGE_NAME = (
    "without a token only the names localhost, 127.0.0.1 and [::1] are answered here, and it was asked for by "
    f"another: use one of these, or set {TOKEN} where `recyclery run` starts\n"
)
WRONG = f"send the header `Authorization: Bearer` with what {TOKEN} is\n"


def guard(handlers: Mapping[str, Handler], address: Address, token: str) -> Mapping[str, Handler]:
    """Return the handlers, each of which answers only who may read it at this address."""
    return {path: guarded(handler, address, token) for path, handler in handlers.items()}


def is_loopback(address: Address) -> bool:
    """Tell whether only this machine reaches the address."""
    return bool(address.host) and is_loopback_name(address.host)


def is_loopback_name(name: str) -> bool:
    """Tell whether a name or IP, without a port, is this machine's to itself."""
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def needs_token(request: h11.Request, address: Address) -> bool:
    """Tell whether who asks has to show the token, or that he had it."""
    # What names no host is no browser's.
    host = find_header(request, b"host") or "localhost"
    port = host.rpartition(":")[2]
    name = host[: -len(port) - 1] if port.isdecimal() else host
    return not (is_loopback(address) and is_loopback_name(name))


def find_refusal(request: h11.Request, address: Address, token: str) -> Answer | None:
    """Return the answer to who may not read what is not open; None where he may."""
    if not needs_token(request, address):
        return None
    if not token:
        return Answer(HTTPStatus.FORBIDDEN, STRANGE_NAME if is_loopback(address) else UNSET)
    if is_token(sent_token(request), token) or is_signed_in(request, token, time.time()):
        return None
    return Answer(HTTPStatus.UNAUTHORIZED, WRONG, {"WWW-Authenticate": 'Bearer realm="recyclery"'})


def guarded(handler: Handler, address: Address, token: str) -> Handler:
    """Return the handler behind the token."""

    async def answer(request: h11.Request) -> Answer:
        refusal = find_refusal(request, address, token)
        return await handler(request) if refusal is None else refusal

    return answer


def is_token(given: bytes, token: str) -> bool:
    """Compare in a time that does not tell how much of it was right."""
    return hmac.compare_digest(given, token.encode())


def sent_token(request: h11.Request) -> bytes:
    """Return the token that a request brings; empty where it brings none."""
    given = next((value for name, value in request.headers if name == b"authorization"), b"")
    scheme, _, token = given.partition(b" ")
    return token.strip() if scheme.lower() == SCHEME else b""
