"""What a real worker says of what it takes and of what it should have ended, and its sign of life."""

import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.exceptions import TimeLimitExceeded
from kombu import Queue

from recyclery_worker import link
from recyclery_worker.control import server
from recyclery_worker.control.server import BrokerProbe, has_room
from support.bare_worker import BareWorker, bare_worker
from support.redis_server import empty
from support.sending import sending_to
from support.waiting import wait_for


@pytest.fixture(scope="module")
def worker(redis_url: str) -> Iterator[BareWorker]:
    """A worker, shared: a test leaves it as it found it."""
    empty(redis_url)
    with bare_worker(redis_url, app="deaf_app") as running:
        yield running


@pytest.fixture
def sender(redis_url: str) -> Iterator[Celery]:
    with sending_to(redis_url) as app:
        # Its commands are known once it is connected.
        wait_for(lambda: app.control.ping(timeout=0.5), "the worker")
        yield app


def test_a_worker_counts_the_messages_it_receives(worker: BareWorker, sender: Celery) -> None:
    before = worker.stat().received
    sender.send_task("sample_app.add", (1, 2), queue="low").get(timeout=10)
    sender.send_task("sample_app.nobody_knows", queue="low")
    wait_for(lambda: worker.stat().received == before + 2, "also what it does not know")


def test_a_worker_has_room_while_it_holds_fewer_tasks_than_it_may_run(
    worker: BareWorker, sender: Celery, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    wait_for(lambda: worker.stat().has_room, "it is idle")
    result = sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
    wait_for(lambda: not worker.stat().has_room, "it has all it may run")
    gate.touch()
    result.get(timeout=10)
    wait_for(lambda: worker.stat().has_room, "it is idle again")


@pytest.mark.parametrize(("arguments", "expected"), [(None, True), ({"x-single-active-consumer": True}, False)])
def test_a_worker_that_rabbitmq_may_give_nothing_has_no_room(
    arguments: dict[str, bool] | None, expected: bool
) -> None:
    queues = {"low": Queue("low", queue_arguments=arguments)}
    idle = SimpleNamespace(
        app=SimpleNamespace(conf={}, amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=queues))),
        consumer=SimpleNamespace(task_buckets={}),
        pool=SimpleNamespace(num_processes=1),
    )
    assert has_room(idle) is expected


def test_what_a_broker_said_long_ago_is_not_known_now(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = BrokerProbe(Celery(broker="memory://", set_as_current=False), "amqp")
    assert probe.known() == (None, None)
    probe.note(answers=True, waiting={"low": 3})
    assert probe.known() == (True, {"low": 3})
    monkeypatch.setattr(server, "OLD_ANSWER_SECONDS", 0.0)
    assert probe.known() == (None, None)


def test_a_queue_that_an_operator_cancelled_is_not_consumed_but_still_counted(
    worker: BareWorker, sender: Celery
) -> None:
    assert worker.stat().consumes == ["low"]
    sender.control.cancel_consumer("low", reply=True)
    try:
        assert worker.stat().consumes == []
        result = sender.send_task("sample_app.add", (1, 2), queue="low")
        wait_for(lambda: next_pulse(worker).waiting == {"low": 1}, "it is counted")
    finally:
        sender.control.add_consumer("low", reply=True)
    assert result.get(timeout=10) == 3


def test_the_heartbeat_reports_the_broker_and_the_waiting_messages(worker: BareWorker, sender: Celery) -> None:
    # What the test before sent may be counted still.
    wait_for(lambda: next_pulse(worker).waiting == {"low": 0}, "its broker was asked, and nothing waits")
    pulse = next_pulse(worker)
    assert (pulse.pool, pulse.pid, pulse.stopping) == ("slow", worker.process.pid, False)
    assert pulse.broker_answers


def next_pulse(worker: BareWorker) -> link.WorkerHeartbeat:
    """Stand in for the governor until a sign of life comes."""
    path = link.governor_socket(worker.runtime_dir)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reports:
        reports.bind(str(path))
        try:
            reports.settimeout(30)
            while True:
                report = link.decode_report(reports.recv(link.MAX_PACKET_BYTES))
                if isinstance(report, link.WorkerHeartbeat):
                    return report
        finally:
            path.unlink()


def test_a_task_past_its_hard_limit_is_named_and_ended_when_asked(worker: BareWorker, sender: Celery) -> None:
    result = sender.send_task("sample_app.nap", (600,), queue="low", time_limit=2)
    child = wait_for(lambda: next((c.pid for c in worker.stat().children if c.task_id), 0), "it runs")
    assert worker.ask(link.TimeLimitRequest(pid=child)) == link.Refused(
        reason=f"{child} has no task that is past its hard time limit"
    )
    sender.control.broadcast("forget_limits", reply=True)
    wait_for(lambda: worker.stat().overdue.get(child, 0) > 0, "it is named")
    assert worker.ask(link.TimeLimitRequest(pid=child)) == link.RequestDone()
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=20)
    wait_for(lambda: worker.stat().overdue == {}, "it is over")
