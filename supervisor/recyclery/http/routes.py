"""All paths that the governor serves over HTTP, and who may read each; imported only where HTTP is on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from recyclery.config.paths import history_file
from recyclery.config.secrets import read_token
from recyclery.config.settings import Address
from recyclery.http.auth import guard
from recyclery.http.metrics import list_metrics_page
from recyclery.http.page_api import Api, Sources
from recyclery.http.probes import list_probes
from recyclery.http.server import Handler, PostHandler, serve_http
from recyclery.http.sign_in import SignIn
from recyclery.http.standalone import read_file
from recyclery.http.static import list_files, serve_text

if TYPE_CHECKING:
    from recyclery.governor import Governor

PAGE = "page.html"


async def serve_pages(governor: Governor, address: Address) -> None:
    """Serve until cancelled: probes are open to everybody, the rest is behind the token."""
    token = read_token(os.environ)
    metrics = guard(list_metrics_page(governor), address, token)
    sources = Sources(governor.glance, history_file(governor.settings.state_dir))
    page, forms = list_page(sources, address, token)
    await serve_http(address, {**list_probes(governor.heart), **metrics, **page}, forms)


def list_page(
    sources: Sources, address: Address, token: str
) -> tuple[Mapping[str, Handler], Mapping[str, PostHandler]]:
    """Return the page's GET and POST handlers by path."""
    sign_in = SignIn(address, token)
    handlers = {
        "/": sign_in.before(serve_text(read_file(PAGE), PAGE)),
        **sign_in.handlers(),
        **list_files(),
        **guard(Api(sources, token).handlers(), address, token),
    }
    return handlers, sign_in.post_handlers()
