"""Sign-in with the token by a small form, and sign-out: the only POST requests there are.

A wrong token may be tried a few times at once, then once every few seconds, by all clients together. Counting
by address would be no bound: behind a platform's proxy all clients have one, and its headers can be made up.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

import h11

from recyclery.config.secrets import TOKEN
from recyclery.config.settings import Address
from recyclery.http.auth import find_refusal, is_token, make_session, needs_token, set_cookie
from recyclery.http.server import GetHandler, PostHandler, Response, find_header
from recyclery.http.standalone import read_page_file
from recyclery.http.static import file_response

MAX_ATTEMPTS = 5
ATTEMPT_SECONDS = 2.0
FORM = "sign_in.html"
# A placeholder in the form.
MESSAGE = "{{message}}"
CROSS_SITE = "this form must be sent from the page itself, not from another site\n"

log = logging.getLogger("recyclery")


class AttemptLimit:
    """Limits wrong tokens. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._free_at = 0.0

    def wait_seconds(self, now: float) -> float:
        """Return how long until the next token is accepted; 0 if one may be tried now."""
        return max(0.0, self._free_at - (MAX_ATTEMPTS - 1) * ATTEMPT_SECONDS - now)

    def record_wrong(self, now: float) -> None:
        """Count one wrong token."""
        self._free_at = max(self._free_at, now) + ATTEMPT_SECONDS


class SignIn:
    """The sign-in form, its submission, and sign-out."""

    def __init__(self, address: Address, token: str) -> None:
        self._address = address
        self._token = token
        self._attempts = AttemptLimit()
        self._form = read_page_file(FORM)

    def handlers(self) -> Mapping[str, GetHandler]:
        """Return the GET handlers by path."""
        return {"/sign-in": self.show_form}

    def post_handlers(self) -> Mapping[str, PostHandler]:
        """Return the POST handlers by path."""
        return {"/sign-in": self.check_token, "/sign-out": self.sign_out}

    def before(self, handler: GetHandler) -> GetHandler:
        """Return the handler of a page, which redirects clients without a session to the form."""

        async def answer(request: h11.Request) -> Response:
            refusal = find_refusal(request, self._address, self._token)
            if refusal is None:
                return await handler(request)
            return redirect("/sign-in") if refusal.status == HTTPStatus.UNAUTHORIZED else refusal

        return answer

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
            after = {"Retry-After": str(math.ceil(wait))}
            return self._fill_in(
                "Too many wrong tokens. Try again in a few seconds.", HTTPStatus.TOO_MANY_REQUESTS, after
            )
        given = parse_qs(body.decode("latin-1"), encoding="utf-8").get("token", [""])[0]
        if is_token(given.strip().encode(), self._token):
            session = make_session(self._token)
            return redirect("/", {"Set-Cookie": set_cookie(session, request)})
        self._attempts.record_wrong(now)
        if self._attempts.wait_seconds(now) > 0:
            log.warning("HTTP: several wrong tokens in the sign-in form; it is blocked for a moment")
        return self._fill_in(f"This is not the value of {TOKEN}.", HTTPStatus.UNAUTHORIZED)

    async def sign_out(self, request: h11.Request, _: bytes) -> Response:
        """End the session in the browser."""
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
