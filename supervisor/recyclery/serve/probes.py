"""What probes ask over HTTP: whether the governor's loop turns, and whether the pools can be counted on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus

import h11

from recyclery.health.command import find_ill, find_silence
from recyclery.health.heartbeat import Beat, Heart
from recyclery.serve.http import Answer, Handler


def list_probes(heart: Heart) -> Mapping[str, Handler]:
    """Return the answers by path."""

    async def livez(_: h11.Request) -> Answer:
        return tell(find_stop(heart.last, time.monotonic()), well="alive")

    async def readyz(_: h11.Request) -> Answer:
        return tell(find_unready(heart.last, time.monotonic()), well="ready")

    return {"/livez": livez, "/readyz": readyz}


def find_stop(last: Beat | None, now: float) -> str | None:
    """Return why the governor's loop cannot be said to turn, None where it does."""
    return "the governor has not looked yet" if last is None else find_silence(now - last.at)


def find_unready(last: Beat | None, now: float) -> str | None:
    """Return why not every pool can be counted on, None where they can."""
    return find_stop(last, now) or find_ill(last.states if last else {})


def tell(fault: str | None, *, well: str) -> Answer:
    """Answer a probe: all is well, or what is not."""
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE if fault else HTTPStatus.OK, f"{fault or well}\n")
