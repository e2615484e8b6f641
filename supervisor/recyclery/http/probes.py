"""`/livez` and `/readyz`: whether the governor's loop runs, and whether all pools are healthy."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus

import h11

from recyclery.health.command import find_ill, find_silence
from recyclery.health.heartbeat import Beat, Heart
from recyclery.http.server import Handler, Response


def list_probes(heart: Heart) -> Mapping[str, Handler]:
    """Return the handlers by path."""

    async def livez(_: h11.Request) -> Response:
        return probe_response(find_stop(heart.last, time.monotonic()), well="alive")

    async def readyz(_: h11.Request) -> Response:
        return probe_response(find_unready(heart.last, time.monotonic()), well="ready")

    return {"/livez": livez, "/readyz": readyz}


def find_stop(last: Beat | None, now: float) -> str | None:
    """Return why the governor's loop is not known to run; None if it runs."""
    return "the governor has not looked yet" if last is None else find_silence(now - last.at)


def find_unready(last: Beat | None, now: float) -> str | None:
    """Return why not every pool is healthy; None if all are."""
    return find_stop(last, now) or find_ill(last.states if last else {})


def probe_response(fault: str | None, *, well: str) -> Response:
    """Return the response to a probe: `well`, or 503 with the fault."""
    return Response(HTTPStatus.SERVICE_UNAVAILABLE if fault else HTTPStatus.OK, f"{fault or well}\n")
