"""Access to what is not open: everybody on loopback; elsewhere, clients with the token or a session.

The token is read from the environment and accepted in a header only: too many people read files, URLs and logs.
A browser sends a session cookie instead: the time of its sign-in, signed with the token. The governor stores no
session, so a restarted one accepts those of the one before, and a new token ends all of them.

A small form signs in; it and sign-out are the only POST requests there are. A wrong token may be tried a few
times at once, then once every few seconds, by all clients together. Counting by address would be no bound:
behind a platform's proxy all clients have one, and its headers can be made up.

On loopback, a page of another site could reach this server by a domain name that it points here (DNS
rebinding), so only the names of this machine are accepted there.
"""

import hashlib
import hmac
import ipaddress
import logging
import math
import time
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

import h11
from itsdangerous import TimestampSigner

from recyclery.config.secrets import TOKEN
from recyclery.config.settings import Address
from recyclery.http.server import GetHandler, Response, file_response, find_header
from recyclery.http.standalone import read_page_file

COOKIE = "recyclery_session"
SESSION_SECONDS = 12 * 3600
MAX_ATTEMPTS = 5
ATTEMPT_SECONDS = 2.0
FORM = "sign_in.html"
# A placeholder in the form.
MESSAGE = "{{message}}"
UNSET = (
    f"this address is not loopback and no token is set: set {TOKEN} to a long random text where "
    "`recyclery run` starts, and send `Authorization: Bearer` with it; or serve on 127.0.0.1\n"
)
FOREIGN_NAME = (
    "without a token only requests to the names localhost, 127.0.0.1 and [::1] are accepted here: use one "
    f"of these, or set {TOKEN} where `recyclery run` starts\n"
)
WRONG = f"send the header `Authorization: Bearer` with what {TOKEN} is\n"
CROSS_SITE = "this form must be sent from the page itself, not from another site\n"

log = logging.getLogger("recyclery")


def guard(
    handlers: Mapping[str, GetHandler], address: Address, token: str, *, with_form: bool = False
) -> Mapping[str, GetHandler]:
    """Return the handlers, each behind the token if the address needs it; a form may ask for it."""

    def guarded(handler: GetHandler) -> GetHandler:
        async def answer(request: h11.Request) -> Response:
            refusal = find_refusal(request, address, token)
            if refusal is None:
                return await handler(request)
            return redirect("/sign-in") if with_form and refusal.status == HTTPStatus.UNAUTHORIZED else refusal

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
    return token.strip() if scheme.lower() == b"bearer" else b""


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
    cookies = (cookie.strip().partition("=") for cookie in (find_header(request, b"cookie") or "").split(";"))
    return any(name == COOKIE and is_valid(session, token) for name, _, session in cookies)


def set_cookie(session: str, request: h11.Request, max_age: int = SESSION_SECONDS) -> str:
    """Return the Set-Cookie header that stores a session: Secure if the browser came by HTTPS."""
    # The first of several proxies is the one that the browser connects to.
    protocols = (find_header(request, b"x-forwarded-proto") or "").split(",")
    secure = "; Secure" if protocols[0].strip().lower() == "https" else ""
    return f"{COOKIE}={session}; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Strict{secure}"


class AttemptLimit:
    """Limits wrong tokens. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._free_at = 0.0

    def wait_seconds(self, now: float) -> float:
        """Return how long until the next token is accepted; 0 if one may be tried now."""
        return max(0.0, self._free_at - (MAX_ATTEMPTS - 1) * ATTEMPT_SECONDS - now)

    def record_wrong(self, now: float) -> None:
        self._free_at = max(self._free_at, now) + ATTEMPT_SECONDS


class SignIn:
    """The sign-in form, its submission, and sign-out."""

    def __init__(self, address: Address, token: str) -> None:
        self._address = address
        self._token = token
        self._attempts = AttemptLimit()
        self._form = read_page_file(FORM)

    async def show_form(self, request: h11.Request) -> Response:
        """Return the form, or a redirect to the page if the client has access already."""
        refusal = find_refusal(request, self._address, self._token)
        if refusal is None:
            return redirect("/")
        return self._fill_in("") if refusal.status == HTTPStatus.UNAUTHORIZED else refusal

    async def check_token(self, request: h11.Request, body: bytes) -> Response:
        """Start a session if the form has the right token."""
        if is_cross_site(request):
            return Response(HTTPStatus.FORBIDDEN, CROSS_SITE)
        if not needs_token(request, self._address):
            return redirect("/")
        if not self._token:
            return await self.show_form(request)
        now = time.monotonic()
        # Before the token is compared, else the response would reveal whether it was right.
        if (wait := self._attempts.wait_seconds(now)) > 0:
            text = "Too many wrong tokens. Try again in a few seconds."
            after = {"Retry-After": str(math.ceil(wait))}
            return self._fill_in(text, HTTPStatus.TOO_MANY_REQUESTS, after)
        given = parse_qs(body.decode("latin-1"), encoding="utf-8").get("token", [""])[0]
        if is_token(given.strip().encode(), self._token):
            session = make_session(self._token)
            return redirect("/", {"Set-Cookie": set_cookie(session, request)})
        self._attempts.record_wrong(now)
        if self._attempts.wait_seconds(now) > 0:
            log.warning("HTTP: several wrong tokens in the sign-in form; it is blocked for a moment")
        return self._fill_in(f"This is not the value of {TOKEN}.", HTTPStatus.UNAUTHORIZED)

    async def sign_out(self, request: h11.Request, _: bytes) -> Response:
        if is_cross_site(request):
            return Response(HTTPStatus.FORBIDDEN, CROSS_SITE)
        return redirect("/sign-in", {"Set-Cookie": set_cookie("", request, max_age=0)})

    def _fill_in(
        self, message: str, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] = {}
    ) -> Response:
        return file_response(self._form.replace(MESSAGE, message), FORM, status, headers)


def redirect(path: str, headers: Mapping[str, str] = {}) -> Response:
    """Return a redirect, to be followed with GET."""
    return Response(HTTPStatus.SEE_OTHER, f"{path}\n", {"Location": path, **headers})


def is_cross_site(request: h11.Request) -> bool:
    """Return whether a page of another origin sent this; only browsers name an origin."""
    site = find_header(request, b"sec-fetch-site")
    if site is not None:
        return site != "same-origin"
    # Browsers send Sec-Fetch-Site to HTTPS and localhost only, but Origin always.
    origin = find_header(request, b"origin")
    return origin is not None and urlsplit(origin).netloc != find_header(request, b"host")
