"""All that the governor serves over HTTP, and who may read it; imported only where it is served at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from recyclery.config.paths import history_file
from recyclery.config.secrets import read_token
from recyclery.config.settings import Address
from recyclery.serve.http import serve_http
from recyclery.serve.metrics import list_metrics_page
from recyclery.serve.page.api import Sources
from recyclery.serve.page.paths import list_page
from recyclery.serve.probes import list_probes
from recyclery.serve.token import guard

if TYPE_CHECKING:
    from recyclery.governor.loop import Governor


async def serve_pages(governor: Governor, address: Address) -> None:
    """Serve until cancelled: probes for everybody, the rest for whoever may read it."""
    token = read_token(os.environ)
    metrics = guard(list_metrics_page(governor), address, token)
    sources = Sources(governor.glance, history_file(governor.settings.state_dir))
    page, forms = list_page(sources, address, token)
    await serve_http(address, {**list_probes(governor.heart), **metrics, **page}, forms)
