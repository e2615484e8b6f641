"""What a browser gets as it is: the page, its styles, its script. No figure is in it, so it is open."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

import h11

from recyclery.http.server import Answer, Handler
from recyclery.http.standalone import FOLDER, read_file

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Nothing from elsewhere, nothing inline, nothing within another's frame.
POLICY = "; ".join(
    (
        "default-src 'none'",
        *(f"{what}-src 'self'" for what in ("script", "style", "img", "connect")),
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def show(text: str, name: str, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] = {}) -> Answer:
    """Answer with a file's text."""
    kind = f"{KINDS[Path(name).suffix]}; charset=utf-8"
    return Answer(status, text, {**HEADERS, "Content-Type": kind, **headers})


def list_files() -> Mapping[str, Handler]:
    """Return the answers by path; what is not a page of its own. All is read now: a disk may hang later."""
    names = [path.name for path in FOLDER.iterdir() if path.suffix in KINDS and path.suffix != ".html"]
    return {f"/files/{name}": serve_text(read_file(name), name) for name in names}


def serve_text(text: str, name: str) -> Handler:
    """Return the handler that always answers with this."""

    async def answer(_: h11.Request) -> Answer:
        return show(text, name)

    return answer
