"""Sends alerts to a webhook from a thread of its own, in order and with retries.

Nobody waits for it: a message that finds the queue full is dropped, counted and logged.
"""

import json
import logging
import queue
import threading
from datetime import UTC, datetime
from typing import Any

from recyclery.alerts.rules import URGENT, Alert
from recyclery.config.secrets import Webhook

POST_SECONDS = 10.0
FIRST_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 60.0
WEBHOOK_TRIES = 10
QUEUE_SIZE = 100
# HTTP answers after which another try may succeed.
TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
SUMMARY_CHARACTERS = 1024

log = logging.getLogger("recyclery")


class NotDelivered(Exception):
    """A message was not delivered; `hopeless` if another try cannot succeed."""

    def __init__(self, why: str, *, hopeless: bool) -> None:
        super().__init__(why)
        self.hopeless = hopeless


class WebhookSender:
    """The queue and its thread, which starts with the first message."""

    def __init__(self, webhook: Webhook, form: str, host: str) -> None:
        self.dropped = 0
        self._webhook = webhook
        self._form = form
        self._host = host
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(QUEUE_SIZE)
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()

    def send(self, alert: Alert) -> None:
        """Enqueue an alert, without waiting."""
        message = build_message(alert, self._form, self._host, self._webhook.key, datetime.now(UTC))
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            self._drop("too many wait")
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._deliver_all, name="alerts", daemon=True)
            self._thread.start()

    def finish(self, seconds: float) -> None:
        """Give each message in the queue one more try, for at most this long."""
        self._hurry.set()
        if self._thread is not None:
            try:
                self._waiting.put_nowait({})
            except queue.Full:
                return
            self._thread.join(seconds)

    def _deliver_all(self) -> None:
        # An empty message ends the thread.
        while message := self._waiting.get():
            self._deliver(message)

    def _deliver(self, message: dict[str, Any]) -> None:
        pause = FIRST_RETRY_SECONDS
        for tries_left in reversed(range(WEBHOOK_TRIES)):
            try:
                post(self._webhook.url, message)
                return
            except NotDelivered as error:
                if error.hopeless or not tries_left or self._hurry.is_set():
                    self._drop(str(error))
                    return
                log.debug("an alert was not taken: %s; trying again", error)
            self._hurry.wait(pause)
            pause = min(2 * pause, MAX_RETRY_SECONDS)

    def _drop(self, why: str) -> None:
        self.dropped += 1
        log.error("an alert was not sent: %s", why)


def post(url: str, message: dict[str, Any]) -> None:
    """Send one message; raises NotDelivered, which never names the address."""
    # Imported late: most governors never send one.
    from http.client import HTTPException  # noqa: PLC0415
    from urllib.error import HTTPError  # noqa: PLC0415
    from urllib.request import Request, urlopen  # noqa: PLC0415

    headers = {"Content-Type": "application/json", "User-Agent": "recyclery"}
    # Only http and https: config/secrets.py.
    request = Request(url, json.dumps(message).encode(), headers)  # noqa: S310
    try:
        urlopen(request, timeout=POST_SECONDS).close()  # noqa: S310
    except HTTPError as error:
        error.close()
        raise NotDelivered(f"the webhook answered {error.code}", hopeless=error.code not in TRY_AGAIN) from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise NotDelivered(f"the webhook cannot be reached: {type(reason).__name__}", hopeless=False) from None
    except (HTTPException, ValueError) as error:
        raise NotDelivered(f"the webhook cannot be spoken to: {type(error).__name__}", hopeless=False) from None


def build_message(alert: Alert, form: str, host: str, key: str, at: datetime) -> dict[str, Any]:
    """Return an alert as the receiver's format has it."""
    kind, subject = alert.topic
    about = f"{kind} {subject}".strip()
    state = "firing" if alert.firing else "resolved"
    text = f"[{host}] {about}: {alert.text}"
    if form == "slack":
        return {"text": f"{':rotating_light:' if alert.firing else ':white_check_mark:'} {state}: {text}"}
    name = "/".join(filter(None, ("recyclery", host, kind, subject)))
    severity = "critical" if kind in URGENT else "warning"
    if form == "pagerduty":
        action = "trigger" if alert.firing else "resolve"
        payload = {
            "summary": text[:SUMMARY_CHARACTERS],
            "source": host,
            "severity": severity,
            "timestamp": at.isoformat(),
            "component": subject or "container",
            "class": kind,
        }
        event = {"routing_key": key, "event_action": action, "dedup_key": name}
        return {**event, "payload": payload} if alert.firing else event
    return {
        "id": name,
        "state": state,
        "alert": kind,
        "subject": subject,
        "severity": severity,
        "host": host,
        "text": alert.text,
        "at": at.isoformat(),
    }
