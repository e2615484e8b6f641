"""Signing in with the token by a small form, and out; nothing else is ever taken by POST.

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
from recyclery.http.auth import drop_cookie, find_refusal, is_token, make_session, needs_token, set_cookie
from recyclery.http.server import Answer, Handler, Taker, find_header
from recyclery.http.standalone import read_file
from recyclery.http.static import show

AT_ONCE = 5
EVERY_SECONDS = 2.0
FORM = "sign_in.html"
# Its place in the form.
SAID = "{{said}}"
CROSS_SITE = "this form is taken from the page itself, not from another site\n"

log = logging.getLogger("recyclery")


class Attempts:
    """What was tried in vain. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._free_at = 0.0

    def wait_seconds(self, now: float) -> float:
        """Return how long nobody may try; 0 where one may."""
        return max(0.0, self._free_at - (AT_ONCE - 1) * EVERY_SECONDS - now)

    def note_wrong(self, now: float) -> None:
        """Take down one more."""
        self._free_at = max(self._free_at, now) + EVERY_SECONDS


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
            session = make_session(self._token)
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
