"""The reports that the governor holds between ticks."""

import asyncio
import socket
from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from contracts.product import WORKER
from recyclery.governor.inbox import Inbox
from recyclery.observe.queue_depths import Broker
from recyclery.observe.workers import Workers
from recyclery_worker.link import WorkerHeartbeat, encode_message
from support.snapshots import CHILD, SETTINGS


class Ticks:
    """Counts the ticks that are asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def ask(self) -> None:
        self.asked += 1


def test_a_session_of_a_child_whose_reports_are_dropped_is_forgotten_without_an_error() -> None:
    inbox = Inbox(SETTINGS, Broker(""))
    inbox.forget_session(CHILD, "a session")
    assert inbox.states == {}


def test_only_the_first_heartbeat_of_a_worker_starts_a_tick() -> None:
    ticks = Ticks()
    inbox = Inbox(SETTINGS, Broker(""), wake=ticks.ask)
    sender, reports = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, reports:
        reports.setblocking(False)
        for pid in (7, 7, 8):
            sender.send(encode_message(WorkerHeartbeat(pool="slow", pid=pid, sent=1.0)))
        inbox.receive(reports)
    assert ticks.asked == 2


def test_only_the_first_answer_of_a_worker_starts_a_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = Ticks()
    inbox = Inbox(SETTINGS, Broker(""), wake=ticks.ask)

    async def ask(pid: int) -> None:
        async def answer(workers: Workers, running: Mapping[str, int]) -> None:
            workers.stats = {"slow": replace(WORKER, pid=pid)}

        monkeypatch.setattr(Workers, "poll", answer)
        await inbox._poll_workers({})

    for pid in (7, 7, 8):
        asyncio.run(ask(pid))
    assert ticks.asked == 2
