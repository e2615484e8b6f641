"""Who may read what is not open: everybody on loopback, elsewhere whoever has the token, or had it.

The token comes from the environment alone, and is asked for in a header alone: files, URLs and logs are read by
too many. A browser shows a session cookie instead: the time of its sign-in, signed with the token. The governor
stores no session, so a restarted one accepts those of the one before, and another token ends all of them.

On loopback a page of another site could ask by a name of its own that it has let point here, so only the names
of this machine are answered there.
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
from recyclery.http.server import Answer, Handler, find_header

SCHEME = b"bearer"
COOKIE = "recyclery_session"
SESSION_SECONDS = 12 * 3600
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
    if is_token(sent_token(request), token) or is_signed_in(request, token):
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


def session_signer(token: str) -> TimestampSigner:
    """Return what signs sessions, and judges them in a time that tells nothing of the signature."""
    return TimestampSigner(token, salt=COOKIE, key_derivation="hmac", digest_method=hashlib.sha256)


def make_session(token: str) -> str:
    """Return what shows that the token was known now, for as long as a session lasts."""
    return session_signer(token).sign(b"").decode()


def is_valid(session: str, token: str) -> bool:
    """Tell whether a session was made by this token and has not ended."""
    return session_signer(token).validate(session, max_age=SESSION_SECONDS)


def is_signed_in(request: h11.Request, token: str) -> bool:
    """Tell whether a request brings a session of this token's."""
    cookies = (find_header(request, b"cookie") or "").split(";")
    sessions = (
        value for name, _, value in (cookie.strip().partition("=") for cookie in cookies) if name == COOKIE
    )
    return any(is_valid(session, token) for session in sessions)


def set_cookie(session: str, request: h11.Request) -> str:
    """Return the header's value that has a browser keep a session."""
    return f"{COOKIE}={session}; Max-Age={SESSION_SECONDS}; {attributes(request)}"


def drop_cookie(request: h11.Request) -> str:
    """Return the header's value that has a browser forget its session."""
    return f"{COOKIE}=; Max-Age=0; {attributes(request)}"


def attributes(request: h11.Request) -> str:
    """Say where a browser may show it; never in the open where the way here is not."""
    # Of several proxies the first is the one that the browser speaks to.
    ways = (find_header(request, b"x-forwarded-proto") or "").split(",")
    secure = "; Secure" if ways[0].strip().lower() == "https" else ""
    return f"Path=/; HttpOnly; SameSite=Strict{secure}"
