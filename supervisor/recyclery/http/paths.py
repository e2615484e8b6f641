"""All paths of the page, and who may read which."""

from __future__ import annotations

from collections.abc import Mapping

from recyclery.config.settings import Address
from recyclery.http.auth import guard
from recyclery.http.page_api import Api, Sources
from recyclery.http.server import Handler, Taker
from recyclery.http.sign_in import SignIn
from recyclery.http.static import list_files, read_file, serve_text

PAGE = "page.html"


def list_page(
    sources: Sources, address: Address, token: str
) -> tuple[Mapping[str, Handler], Mapping[str, Taker]]:
    """Return what answers GET, and what takes POST, by path."""
    sign_in = SignIn(address, token)
    handlers = {
        "/": sign_in.before(serve_text(read_file(PAGE), PAGE)),
        **sign_in.handlers(),
        **list_files(),
        **guard(Api(sources, token).handlers(), address, token),
    }
    return handlers, sign_in.takers()
