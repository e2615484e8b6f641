"""All paths that the governor serves over HTTP, and who may read each; imported only where HTTP is on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial

from recyclery.alerts.monitor import Monitor
from recyclery.config.paths import history_file
from recyclery.config.secrets import read_token
from recyclery.config.settings import Address
from recyclery.health.heartbeat import Heart
from recyclery.http.auth import guard
from recyclery.http.metrics import list_metrics_page
from recyclery.http.page_api import Api, Sources
from recyclery.http.probes import list_probes
from recyclery.http.server import Handler, PostHandler, serve_http
from recyclery.http.sign_in import SignIn
from recyclery.http.standalone import read_file
from recyclery.http.static import list_files, serve_text
from recyclery.http.status import leave_unread, read_status
from recyclery.state.board import Board

PAGE = "page.html"


async def serve_pages(board: Board, monitor: Monitor, heart: Heart, address: Address) -> None:
    """Serve until cancelled: probes are open to everybody, the rest is behind the token."""
    token = read_token(os.environ)
    metrics = guard(list_metrics_page(board, monitor), address, token)
    sources = Sources(partial(read_status, board, leave_unread), history_file(board.settings.state_dir))
    page, forms = list_page(sources, address, token)
    await serve_http(address, {**list_probes(heart), **metrics, **page}, forms)


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
