"""Access to what is not open: everybody on loopback; elsewhere, clients with the token or a session.

The token is read from the environment and accepted in a header only: too many people read files, URLs and logs.
A browser sends a session cookie instead: the time of its sign-in, signed with the token. The governor stores no
session, so a restarted one accepts those of the one before, and a new token ends all of them.

On loopback, a page of another site could reach this server by a domain name that it points here (DNS
rebinding), so only the names of this machine are accepted there.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from http import HTTPStatus

import h11
from itsdangerous import TimestampSigner

from recyclery.config.secrets import TOKEN
from recyclery.config.settings import Address
from recyclery.http.server import GetHandler, Response, find_header

SCHEME = b"bearer"
COOKIE = "recyclery_session"
SESSION_SECONDS = 12 * 3600
UNSET = (
    f"this address is not loopback and no token is set: set {TOKEN} to a long random text where "
    "`recyclery run` starts, and send `Authorization: Bearer` with it; or serve on 127.0.0.1\n"
)
FOREIGN_NAME = (
    "without a token only requests to the names localhost, 127.0.0.1 and [::1] are accepted here: use one "
    f"of these, or set {TOKEN} where `recyclery run` starts\n"
)
WRONG = f"send the header `Authorization: Bearer` with what {TOKEN} is\n"


def guard(handlers: Mapping[str, GetHandler], address: Address, token: str) -> Mapping[str, GetHandler]:
    """Return the handlers, each behind the token if the address needs it."""

    def guarded(handler: GetHandler) -> GetHandler:
        async def answer(request: h11.Request) -> Response:
            refusal = find_refusal(request, address, token)
            return await handler(request) if refusal is None else refusal

        return answer

    return {path: guarded(handler) for path, handler in handlers.items()}


def is_loopback(name: str) -> bool:
    """Return whether a host name or IP, without a port, is a loopback one."""
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def needs_token(request: h11.Request, address: Address) -> bool:
    """Return whether a request needs the token or a session."""
    # A browser always names the host.
    host = find_header(request, b"host") or "localhost"
    port = host.rpartition(":")[2]
    name = host[: -len(port) - 1] if port.isdecimal() else host
    return not (is_loopback(address.host) and is_loopback(name))


def find_refusal(request: h11.Request, address: Address, token: str) -> Response | None:
    """Return the response to a client without access; None if it has access."""
    if not needs_token(request, address):
        return None
    if not token:
        return Response(HTTPStatus.FORBIDDEN, FOREIGN_NAME if is_loopback(address.host) else UNSET)
    if is_token(sent_token(request), token) or is_signed_in(request, token):
        return None
    return Response(HTTPStatus.UNAUTHORIZED, WRONG, {"WWW-Authenticate": 'Bearer realm="recyclery"'})


def is_token(given: bytes, token: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given, token.encode())


def sent_token(request: h11.Request) -> bytes:
    """Return the bearer token of a request; empty without one."""
    given = next((value for name, value in request.headers if name == b"authorization"), b"")
    scheme, _, token = given.partition(b" ")
    return token.strip() if scheme.lower() == SCHEME else b""


def session_signer(token: str) -> TimestampSigner:
    """Return the signer of sessions, which compares in constant time."""
    return TimestampSigner(token, salt=COOKIE, key_derivation="hmac", digest_method=hashlib.sha256)


def make_session(token: str) -> str:
    """Return a new session, valid for SESSION_SECONDS."""
    return session_signer(token).sign(b"").decode()


def is_valid(session: str, token: str) -> bool:
    """Return whether a session was signed with this token and has not expired."""
    return session_signer(token).validate(session, max_age=SESSION_SECONDS)


def is_signed_in(request: h11.Request, token: str) -> bool:
    """Return whether a request has a valid session cookie."""
    cookies = (find_header(request, b"cookie") or "").split(";")
    sessions = (
        value for name, _, value in (cookie.strip().partition("=") for cookie in cookies) if name == COOKIE
    )
    return any(is_valid(session, token) for session in sessions)


def set_cookie(session: str, request: h11.Request, max_age: int = SESSION_SECONDS) -> str:
    """Return the Set-Cookie header that stores a session: Secure if the browser came by HTTPS."""
    # The first of several proxies is the one that the browser connects to.
    protocols = (find_header(request, b"x-forwarded-proto") or "").split(",")
    secure = "; Secure" if protocols[0].strip().lower() == "https" else ""
    return f"{COOKIE}={session}; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Strict{secure}"
