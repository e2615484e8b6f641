"""All that the governor serves over HTTP, and who may read it; imported only where it is served at all."""

from __future__ import annotations

import os
from functools import partial

from recyclery.alerts.monitor import Monitor
from recyclery.config.paths import history_file
from recyclery.config.secrets import read_token
from recyclery.config.settings import Address
from recyclery.health.heartbeat import Heart
from recyclery.serve.document import leave_unread, read_status
from recyclery.serve.http import serve_http
from recyclery.serve.metrics import list_metrics_page
from recyclery.serve.page.api import Sources
from recyclery.serve.page.paths import list_page
from recyclery.serve.probes import list_probes
from recyclery.serve.token import guard
from recyclery.state.board import Board


async def serve_pages(board: Board, monitor: Monitor, heart: Heart, address: Address) -> None:
    """Serve until cancelled: probes for everybody, the rest for whoever may read it."""
    token = read_token(os.environ)
    metrics = guard(list_metrics_page(board, monitor), address, token)
    sources = Sources(partial(read_status, board, leave_unread), history_file(board.settings.state_dir))
    page, forms = list_page(sources, address, token)
    await serve_http(address, {**list_probes(heart), **metrics, **page}, forms)
