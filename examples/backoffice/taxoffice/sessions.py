"""Who is logged in: session tokens, their CSRF tokens, and their end."""

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

SESSION_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Session:
    """One visitor; `user` is None until the login."""

    token: str
    csrf: str
    user: str | None
    ends_at: float


class Sessions:
    """All sessions of the site, safe to use from every request's thread."""

    def __init__(
        self, lifetime_seconds: float = SESSION_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lifetime_seconds = lifetime_seconds
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def open(self, user: str | None = None) -> Session:
        """Open a session with fresh tokens, and drop those that have ended."""
        now = self._clock()
        session = Session(
            secrets.token_urlsafe(24), secrets.token_urlsafe(24), user, now + self._lifetime_seconds
        )
        with self._lock:
            self._sessions = {t: s for t, s in self._sessions.items() if s.ends_at > now}
            self._sessions[session.token] = session
        return session

    def find(self, token: str | None) -> Session | None:
        """Find the session of `token`, or None if there is none or its time is over."""
        with self._lock:
            session = self._sessions.get(token or "")
        if session is None or session.ends_at <= self._clock():
            return None
        return session

    def close(self, session: Session) -> None:
        """End `session` now; its token opens nothing any more."""
        with self._lock:
            self._sessions.pop(session.token, None)
