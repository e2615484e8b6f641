"""What a browser shows instead of the token, and how often a wrong token may be tried."""

import hashlib
import hmac
from collections.abc import Callable

import h11
import pytest
from itsdangerous import TimestampSigner

from recyclery.http.auth import (
    ATTEMPT_SECONDS,
    COOKIE,
    MAX_ATTEMPTS,
    SESSION_SECONDS,
    AttemptLimit,
    is_cross_site,
    is_signed_in,
    is_valid,
    make_session,
    set_cookie,
)

TOKEN = "correct horse"
NOW = 1_800_000_000.5


def request(**headers: str) -> h11.Request:
    """A request with these headers."""
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return h11.Request(method="POST", target="/sign-in", headers=[("Host", "page.example:9100"), *named])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the wall clock."""

    def set_to(now: float) -> None:
        monkeypatch.setattr("time.time", lambda: now)

    set_to(NOW)
    return set_to


def test_a_session_is_valid_until_it_ends(clock: Callable[[float], None]) -> None:
    session = make_session(TOKEN)
    assert is_valid(session, TOKEN)
    clock(NOW + SESSION_SECONDS - 1)
    assert is_valid(session, TOKEN)
    clock(NOW + SESSION_SECONDS + 1)
    assert not is_valid(session, TOKEN)


def test_a_session_from_a_clock_that_went_wrong_is_none(clock: Callable[[float], None]) -> None:
    clock(NOW + 3600)
    session = make_session(TOKEN)
    clock(NOW)
    assert not is_valid(session, TOKEN)


def test_a_session_does_not_hold_the_token_and_ends_with_it() -> None:
    session = make_session(TOKEN)
    assert TOKEN not in session
    assert not is_valid(session, "another")


@pytest.mark.parametrize(
    "forged", ["", ".", "1", "x.y", "9999999999.", "9999999999.\xff", ".9999999999.x", TOKEN]
)
def test_what_the_token_did_not_sign_is_no_session(forged: str) -> None:
    assert not is_valid(forged, TOKEN)


def test_a_session_whose_end_was_changed_is_none(clock: Callable[[float], None]) -> None:
    session = make_session(TOKEN)
    clock(NOW + 10)
    later = make_session(TOKEN)
    value, _, mark = session.split(".")
    assert not is_valid(f"{value}.{later.split('.')[1]}.{mark}", TOKEN)
    assert is_valid(session, TOKEN)


def test_what_another_part_signs_with_the_token_is_no_session() -> None:
    assert not is_valid(TimestampSigner(TOKEN, digest_method=hashlib.sha256).sign(b"").decode(), TOKEN)


def test_a_signature_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session(TOKEN)
    compare, compared = hmac.compare_digest, []

    def watched(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    assert is_valid(session, TOKEN)
    assert [len(signature) for signature in compared] == [hashlib.sha256().digest_size]


def test_a_session_is_found_among_other_cookies() -> None:
    session = make_session(TOKEN)
    assert is_signed_in(request(cookie=f"a=b; {COOKIE}={session}; c"), TOKEN)
    assert not is_signed_in(request(cookie=f"x{COOKIE}={session}"), TOKEN)
    assert not is_signed_in(request(), TOKEN)


def test_the_cookie_is_hidden_from_scripts_and_other_sites_and_secure_where_the_way_is() -> None:
    cookie = set_cookie("s", request())
    assert {"HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={SESSION_SECONDS}"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    for way in ("https", "HTTPS, http"):
        assert set_cookie("s", request(x_forwarded_proto=way)).endswith("; Secure")


def test_some_wrong_tokens_may_be_tried_at_once_then_one_every_few_seconds() -> None:
    attempts = AttemptLimit()
    for _ in range(MAX_ATTEMPTS):
        assert attempts.wait_seconds(100.0) == 0
        attempts.record_wrong(100.0)
    assert attempts.wait_seconds(100.0) == ATTEMPT_SECONDS
    assert attempts.wait_seconds(100.0 + ATTEMPT_SECONDS) == 0
    attempts.record_wrong(100.0 + ATTEMPT_SECONDS)
    assert attempts.wait_seconds(100.0 + ATTEMPT_SECONDS) == ATTEMPT_SECONDS


@pytest.mark.parametrize(
    ("headers", "cross"),
    [
        ({}, False),
        ({"sec_fetch_site": "same-origin"}, False),
        ({"sec_fetch_site": "same-site"}, True),
        ({"sec_fetch_site": "cross-site", "origin": "http://page.example:9100"}, True),
        ({"sec_fetch_site": "none"}, True),
        ({"origin": "http://page.example:9100"}, False),
        ({"origin": "http://page.example"}, True),
        ({"origin": "null"}, True),
    ],
)
def test_a_form_of_another_site_is_told_from_the_pages_own(headers: dict[str, str], cross: bool) -> None:
    assert is_cross_site(request(**headers)) == cross
