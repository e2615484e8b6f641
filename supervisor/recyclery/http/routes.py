"""All paths that the governor serves over HTTP, and who may read each; imported only if HTTP is on."""

import os
import time
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path

import h11

from recyclery.alerts.monitor import Monitor
from recyclery.config.paths import history_file
from recyclery.config.secrets import read_token
from recyclery.config.settings import Address
from recyclery.health.heartbeat import Heartbeat, HeartbeatWriter, find_stale_heartbeat, find_unhealthy_pools
from recyclery.http.auth import SignIn, guard
from recyclery.http.metrics import list_metrics_page
from recyclery.http.page_api import Api, ReadQuickStatus
from recyclery.http.server import (
    CONTENT_TYPES,
    GetHandler,
    PostHandler,
    Response,
    file_response,
    serve_handlers,
)
from recyclery.http.standalone import FOLDER, read_page_file
from recyclery.http.status import leave_unread, read_status
from recyclery.state.board import Board


async def serve_pages(board: Board, monitor: Monitor, heart: HeartbeatWriter, address: Address) -> None:
    """Serve until cancelled: probes are open to everybody, the rest needs the token."""
    token = read_token(os.environ)
    metrics = guard(list_metrics_page(board, monitor), address, token)
    history = history_file(board.settings.state_dir)
    page, forms = list_page(partial(read_status, board, leave_unread), history, address, token)
    await serve_handlers(address, {**list_probes(heart), **metrics, **page}, forms)


def list_page(
    read_quick_status: ReadQuickStatus, history: Path, address: Address, token: str
) -> tuple[Mapping[str, GetHandler], Mapping[str, PostHandler]]:
    """Return the page's GET and POST handlers by path."""
    sign_in = SignIn(address, token)
    handlers = {
        **guard({"/": serve_file("page.html")}, address, token, with_form=True),
        "/sign-in": sign_in.show_form,
        **list_files(),
        **guard(Api(read_quick_status, history, token).handlers(), address, token),
    }
    return handlers, {"/sign-in": sign_in.check_token, "/sign-out": sign_in.sign_out}


def list_files() -> Mapping[str, GetHandler]:
    """Return the handlers of all files but pages, by path; without figures, they are open to everybody."""
    names = [path.name for path in FOLDER.iterdir() if path.suffix in CONTENT_TYPES and path.suffix != ".html"]
    return {f"/files/{name}": serve_file(name) for name in names}


def serve_file(name: str) -> GetHandler:
    """Return the handler of a file, which is read now: a disk may hang later."""
    text = read_page_file(name)

    async def answer(_: h11.Request) -> Response:
        return file_response(text, name)

    return answer


def list_probes(heart: HeartbeatWriter) -> Mapping[str, GetHandler]:
    """Return `/livez`, whether the governor's loop runs, and `/readyz`, whether all pools are healthy too."""

    async def livez(_: h11.Request) -> Response:
        return probe_response(find_stop(heart.last, time.monotonic()), "alive")

    async def readyz(_: h11.Request) -> Response:
        return probe_response(find_unready(heart.last, time.monotonic()), "ready")

    return {"/livez": livez, "/readyz": readyz}


def find_stop(last: Heartbeat | None, now: float) -> str | None:
    """Return why the governor's loop does not run; None if it does."""
    return "the governor has not taken a snapshot yet" if last is None else find_stale_heartbeat(now - last.at)


def find_unready(last: Heartbeat | None, now: float) -> str | None:
    """Return why not every pool is healthy; None if all are."""
    return find_stop(last, now) or find_unhealthy_pools(last.states if last else {})


def probe_response(fault: str | None, success: str) -> Response:
    """Return 200, or 503 with the fault."""
    return Response(HTTPStatus.SERVICE_UNAVAILABLE if fault else HTTPStatus.OK, f"{fault or success}\n")
