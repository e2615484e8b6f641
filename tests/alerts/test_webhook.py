"""Alerts on their way: to a real HTTP server on loopback, in each form."""

import logging
from datetime import UTC, datetime

import pytest

from recyclery.alerts import webhook
from recyclery.alerts.rules import Alert, Topic
from recyclery.alerts.webhook import WebhookSender, build_message
from recyclery.config.secrets import Webhook
from support.ports import free_port
from support.receiver import receiving
from support.waiting import wait_for

FIRES = Alert(Topic("queue_depth", "fast"), firing=True, text="fast: 14 tasks wait")
WELL = Alert(Topic("queue_depth", "fast"), firing=False, text="fast: 2 tasks wait")
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(webhook, "MAX_RETRY_SECONDS", 0.02)


@pytest.mark.parametrize("form", ["json", "slack", "pagerduty"])
def test_an_alert_and_its_recovery_arrive_one_after_the_other(form: str) -> None:
    with receiving() as receiver:
        messenger = WebhookSender(Webhook(receiver.url, "k" * 32), form, "box")
        messenger.send(FIRES)
        messenger.send(WELL)
        wait_for(lambda: len(receiver.bodies) == 2, "two messages")
    fires, well = receiver.bodies
    match form:
        case "slack":
            assert fires == {"text": ":rotating_light: firing: [box] queue_depth fast: fast: 14 tasks wait"}
            assert well["text"].startswith(":white_check_mark: resolved: [box] queue_depth fast")
        case "pagerduty":
            assert (fires["event_action"], well["event_action"]) == ("trigger", "resolve")
            assert fires["routing_key"] == well["routing_key"] == "k" * 32
            assert fires["dedup_key"] == well["dedup_key"] == "recyclery/box/queue_depth/fast"
            assert {"summary", "source", "severity"} <= fires["payload"].keys()
        case _:
            assert (fires["state"], fires["text"]) == ("firing", "fast: 14 tasks wait")
            assert (well["state"], well["id"]) == ("resolved", fires["id"])


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_message_that_was_not_taken_is_sent_again(status: int) -> None:
    with receiving(status, status) as receiver:
        messenger = WebhookSender(Webhook(receiver.url), "json", "box")
        messenger.send(FIRES)
        wait_for(lambda: len(receiver.bodies) == 3, "a third try")
    assert messenger.dropped == 0


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_a_message_that_is_refused_is_dropped_and_said_without_the_address(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with receiving(status) as receiver:
        messenger = WebhookSender(Webhook(receiver.url, "the-key"), "json", "box")
        messenger.send(FIRES)
        messenger.send(WELL)
        wait_for(lambda: len(receiver.bodies) == 2, "the next one")
    assert messenger.dropped == 1
    assert f"the webhook answered {status}" in caplog.text
    assert not any(secret in caplog.text for secret in ("a-secret", "another", "the-key", "127.0.0.1"))


def test_an_address_where_nobody_is_drops_the_message_at_last_and_names_no_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    messenger = WebhookSender(Webhook(f"http://127.0.0.1:{free_port()}/a-secret"), "json", "box")
    messenger.send(FIRES)
    wait_for(lambda: messenger.dropped == 1, "dropped")
    assert "cannot be reached: ConnectionRefusedError" in caplog.text
    assert "a-secret" not in caplog.text


def test_a_webhook_that_hangs_keeps_nobody_waiting_and_what_has_no_room_is_counted() -> None:
    with receiving() as receiver:
        receiver.gate.clear()
        messenger = WebhookSender(Webhook(receiver.url), "json", "box")
        for _ in range(webhook.QUEUE_SIZE + 20):
            messenger.send(FIRES)
        assert receiver.bodies == []
        assert 19 <= messenger.dropped <= 20


def test_at_the_end_what_waits_is_sent() -> None:
    with receiving() as receiver:
        messenger = WebhookSender(Webhook(receiver.url), "json", "box")
        for _ in range(5):
            messenger.send(FIRES)
        messenger.finish(20)
        assert len(receiver.bodies) == 5


def test_the_end_is_not_held_up_by_a_webhook_that_takes_nothing() -> None:
    messenger = WebhookSender(Webhook(f"http://127.0.0.1:{free_port()}/"), "json", "box")
    for _ in range(5):
        messenger.send(FIRES)
    messenger.finish(20)
    assert messenger.dropped == 5


def test_an_alert_on_the_container_has_a_name_and_a_severity_of_its_own() -> None:
    message = build_message(Alert(Topic("memory", ""), firing=True, text="full"), "json", "box", "", AT)
    assert (message["id"], message["severity"]) == ("recyclery/box/memory", "critical")
    assert message["at"] == "2026-01-02T03:04:05+00:00"
