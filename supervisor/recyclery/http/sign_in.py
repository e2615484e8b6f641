"""Signing in with the token by a small form, and out; nothing else is ever taken by POST."""

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
from recyclery.http.attempts import Attempts
from recyclery.http.auth import find_refusal, is_token, needs_token
from recyclery.http.server import Answer, Handler, Taker, find_header
from recyclery.http.session import drop_cookie, make_session, set_cookie
from recyclery.http.static import read_file, show

FORM = "sign_in.html"
# Its place in the form.
SAID = "{{said}}"
CROSS_SITE = "this form is taken from the page itself, not from another site\n"

log = logging.getLogger("recyclery")


class SignIn:
    """The form, what it sends, and the way out."""

    def __init__(self, address: Address, token: str) -> None:
        self._address = address
        self._token = token
        self._attempts = Attempts()
        self._form = read_file(FORM)

    def handlers(self) -> Mapping[str, Handler]:
        """Return the answers by path."""
        return {"/sign-in": self.show_form}

    def takers(self) -> Mapping[str, Taker]:
        """Return what takes a POST, by path."""
        return {"/sign-in": self.take_token, "/sign-out": self.sign_out}

    def before(self, handler: Handler) -> Handler:
        """Return the handler of a page for people: who may not read it is sent here instead."""

        async def answer(request: h11.Request) -> Answer:
            refusal = find_refusal(request, self._address, self._token)
            if refusal is None:
                return await handler(request)
            return send_to("/sign-in") if refusal.status == HTTPStatus.UNAUTHORIZED else refusal

        return answer

    async def show_form(self, request: h11.Request) -> Answer:
        """Answer with the form, or with the way in where it stands open."""
        refusal = find_refusal(request, self._address, self._token)
        if refusal is None:
            return send_to("/")
        return self._fill_in("") if refusal.status == HTTPStatus.UNAUTHORIZED else refusal

    async def take_token(self, request: h11.Request, body: bytes) -> Answer:
        """Let a browser in that brings the token."""
        if is_cross_site(request):
            return Answer(HTTPStatus.FORBIDDEN, CROSS_SITE)
        if not needs_token(request, self._address):
            return send_to("/")
        if not self._token:
            return await self.show_form(request)
        now = time.monotonic()
        # Before the token is looked at: else the answer would tell whether it was the right one.
        if (wait := self._attempts.wait_seconds(now)) > 0:
            after = {"Retry-After": str(math.ceil(wait))}
            return self._fill_in(
                "Too many wrong tokens. Try again in some seconds.", HTTPStatus.TOO_MANY_REQUESTS, after
            )
        given = parse_qs(body.decode("latin-1"), encoding="utf-8").get("token", [""])[0]
        if is_token(given.strip().encode(), self._token):
            session = make_session(self._token, time.time())
            return send_to("/", {"Set-Cookie": set_cookie(session, request)})
        self._attempts.note_wrong(now)
        if self._attempts.wait_seconds(now) > 0:
            log.warning("HTTP: several wrong tokens at the page's form; it is shut for a moment")
        return self._fill_in(f"That is not what {TOKEN} is.", HTTPStatus.UNAUTHORIZED)

    async def sign_out(self, request: h11.Request, _: bytes) -> Answer:
        """Have a browser forget its session."""
        if is_cross_site(request):
            return Answer(HTTPStatus.FORBIDDEN, CROSS_SITE)
        return send_to("/sign-in", {"Set-Cookie": drop_cookie(request)})

    def _fill_in(
        self, said: str, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] = {}
    ) -> Answer:
        return show(self._form.replace(SAID, said), FORM, status, headers)


def send_to(path: str, headers: Mapping[str, str] = {}) -> Answer:
    """Send a browser on, to be read with GET."""
    return Answer(HTTPStatus.SEE_OTHER, f"{path}\n", {"Location": path, **headers})


def is_cross_site(request: h11.Request) -> bool:
    """Tell whether a page of another origin sends this. What says nothing of where it is from is no browser."""
    site = find_header(request, b"sec-fetch-site")
    if site is not None:
        return site != "same-origin"
    # Not told where the way is not encrypted; an origin is.
    origin = find_header(request, b"origin")
    return origin is not None and urlsplit(origin).netloc != find_header(request, b"host")
