"""What the site answers to a request. No sockets here: those are in `server`."""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus

from taxoffice.documents import list_page
from taxoffice.pages import draw_documents, draw_fault, draw_login
from taxoffice.sessions import Session, Sessions
from taxoffice.wishes import NO_WISHES, Trouble, Wishes, read_user, read_wishes

DEFAULT_PASSWORD = "demo"  # noqa: S105 - the made-up site's made-up password
NOTICES = {
    "expired": "Your session has expired. Please log in again.",
    "logout": "You have logged out.",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request, already taken apart. `token` is the session cookie's value."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer; `token` sets the session cookie ("" removes it), `wishes` say how to send it."""

    status: int
    body: str = ""
    content_type: str = "text/html; charset=utf-8"
    location: str | None = None
    token: str | None = None
    wishes: Wishes = NO_WISHES


class Office:
    """The site's routes over its sessions. Every user exists; all have the same password."""

    def __init__(self, sessions: Sessions, password: str = DEFAULT_PASSWORD) -> None:
        self._sessions = sessions
        self._password = password
        self._routes: dict[tuple[str, str], Callable[[Request], Reply]] = {
            ("GET", "/"): lambda _: _redirect("/documents"),
            ("GET", "/health"): lambda _: Reply(HTTPStatus.OK, "ok\n", "text/plain"),
            ("GET", "/login"): self._show_login,
            ("POST", "/login"): self._log_in,
            ("POST", "/logout"): self._log_out,
            ("GET", "/documents"): self._show_documents,
            ("GET", "/api/documents"): self._send_documents,
        }

    def answer(self, request: Request) -> Reply:
        """Answer `request`; wishes in its query come before those in the user's name."""
        route = self._routes.get((request.method, request.path))
        if route is None:
            return _refuse(HTTPStatus.NOT_FOUND)
        try:
            wishes = read_wishes(request.query)
            if wishes.trouble is Trouble.ERROR:
                return _fail(wishes)
            reply = route(request)
        except ValueError:
            return _refuse(HTTPStatus.BAD_REQUEST)
        return reply if wishes == NO_WISHES else _wish(reply, wishes)

    def _show_login(self, request: Request) -> Reply:
        session = self._sessions.open()
        notice = NOTICES.get(request.query.get("reason", ""), "")
        return Reply(HTTPStatus.OK, draw_login(session.csrf, notice=notice), token=session.token)

    def _log_in(self, request: Request) -> Reply:
        session = self._sessions.find(request.token)
        if session is None:
            return _redirect("/login?reason=expired")
        if not _is_genuine(request, session):
            return _refuse(HTTPStatus.FORBIDDEN)
        name = request.form.get("user", "")
        user, wishes = read_user(name)
        if not user or not _is_same(request.form.get("password", ""), self._password):
            body = draw_login(session.csrf, problem="The user or the password is wrong.")
            return Reply(HTTPStatus.UNAUTHORIZED, body)
        self._sessions.close(session)
        if wishes.trouble is Trouble.LOOP:
            return _redirect("/login")
        # A new token at login: whoever knew the old one is not let in with it.
        return replace(_redirect("/documents"), token=self._sessions.open(name).token)

    def _log_out(self, request: Request) -> Reply:
        session = self._sessions.find(request.token)
        if session is not None:
            if not _is_genuine(request, session):
                return _refuse(HTTPStatus.FORBIDDEN)
            self._sessions.close(session)
        return replace(_redirect("/login?reason=logout"), token="")

    def _show_documents(self, request: Request) -> Reply:
        session = self._sessions.find(request.token)
        if session is None and request.token:
            return _redirect("/login?reason=expired")
        if session is None or session.user is None:
            return _redirect("/login")
        user, wishes = read_user(session.user)
        if wishes.trouble is Trouble.ERROR:
            return _fail(wishes)
        heavy_mib = read_wishes(request.query).heavy_mib or wishes.heavy_mib
        reply = Reply(HTTPStatus.OK, draw_documents(user, session.csrf, heavy_mib))
        return _wish(reply, wishes)

    def _send_documents(self, request: Request) -> Reply:
        session = self._sessions.find(request.token)
        if session is None or session.user is None:
            return _send_json(HTTPStatus.UNAUTHORIZED, {"error": "not logged in"})
        user, wishes = read_user(session.user)
        page = int(request.query.get("page", "1"))
        if page < 1:
            raise ValueError(f"page {page} is not 1 or more")
        reply = _send_json(HTTPStatus.OK, list_page(user, page).as_dict())
        # The page has had the user's delay and failures; only what it cannot show itself is left.
        return _wish(reply, wishes) if wishes.trouble is Trouble.MALFORMED else reply


def _wish(reply: Reply, wishes: Wishes) -> Reply:
    is_json = reply.content_type == "application/json"
    if wishes.trouble is Trouble.MALFORMED and is_json:
        reply = replace(reply, body=reply.body[: len(reply.body) // 2])
    return replace(reply, wishes=wishes)


def _fail(wishes: Wishes) -> Reply:
    return replace(_refuse(HTTPStatus.INTERNAL_SERVER_ERROR), wishes=wishes)


def _refuse(status: HTTPStatus) -> Reply:
    return Reply(status, draw_fault(status, status.phrase))


def _redirect(location: str) -> Reply:
    return Reply(HTTPStatus.SEE_OTHER, location=location)


def _send_json(status: HTTPStatus, content: object) -> Reply:
    return Reply(status, json.dumps(content, ensure_ascii=False), "application/json")


def _is_genuine(request: Request, session: Session) -> bool:
    return _is_same(request.form.get("csrf", ""), session.csrf)


def _is_same(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode(), other.encode())
