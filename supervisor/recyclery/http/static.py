"""The page's static files: markup, styles and scripts. They hold no figures, so they are open to everybody."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

import h11

from recyclery.http.server import GetHandler, Response
from recyclery.http.standalone import FOLDER, read_page_file

CONTENT_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Nothing from other hosts, nothing inline, and no framing by other pages.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def file_response(
    text: str, name: str, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] = {}
) -> Response:
    """Return a file as a response."""
    kind = f"{CONTENT_TYPES[Path(name).suffix]}; charset=utf-8"
    return Response(status, text, {**SECURITY_HEADERS, "Content-Type": kind, **headers})


def list_files() -> Mapping[str, GetHandler]:
    """Return the handlers of all files but pages, by path. All are read now: a disk may hang later."""
    names = [path.name for path in FOLDER.iterdir() if path.suffix in CONTENT_TYPES and path.suffix != ".html"]
    return {f"/files/{name}": serve_text(read_page_file(name), name) for name in names}


def serve_text(text: str, name: str) -> GetHandler:
    """Return a handler whose response is always this text."""

    async def answer(_: h11.Request) -> Response:
        return file_response(text, name)

    return answer
