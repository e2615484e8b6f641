"""What a browser shows instead of the token once it had it: a time, and the token's mark under it.

Nothing is kept here: a governor that comes anew knows the sessions of the one before. Another token ends all.
"""

from __future__ import annotations

import hmac

import h11

from recyclery.http.server import find_header

COOKIE = "recyclery_session"
SESSION_SECONDS = 12 * 3600


def make_session(token: str, now: float) -> str:
    """Return what shows that the token was known now, for as long as a session lasts."""
    until = str(int(now) + SESSION_SECONDS)
    return f"{until}.{sign(token, until)}"


def is_valid(session: str, token: str, now: float) -> bool:
    """Tell whether a session was made by this token and has not ended."""
    until, _, mark = session.partition(".")
    if not hmac.compare_digest(mark.encode(), sign(token, until).encode()):
        return False
    return now < int(until) <= now + SESSION_SECONDS


def sign(token: str, until: str) -> str:
    """Return the mark of a token under a time."""
    return hmac.new(token.encode(), b"recyclery: signed in until " + until.encode(), "sha256").hexdigest()


def is_signed_in(request: h11.Request, token: str, now: float) -> bool:
    """Tell whether a request brings a session of this token's."""
    cookies = (find_header(request, b"cookie") or "").split(";")
    sessions = (
        value for name, _, value in (cookie.strip().partition("=") for cookie in cookies) if name == COOKIE
    )
    return any(is_valid(session, token, now) for session in sessions)


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
