"""Secrets come from the environment alone: they are in no file, no error, and none of the settings.

For the settings are written down, and shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from recyclery.config.fields import BadConfiguration

TOKEN = "RECYCLERY_HTTP_TOKEN"  # noqa: S105  # its name
URL = "RECYCLERY_ALERT_URL"
KEY = "RECYCLERY_ALERT_KEY"
ALL = (TOKEN, URL, KEY)
PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"


@dataclass(frozen=True)
class Webhook:
    """Where alerts are sent, and for PagerDuty the integration's key. Who knows the address may write there."""

    url: str = field(repr=False)
    key: str = field(default="", repr=False)


def read_token(environment: Mapping[str, str]) -> str:
    """Return what whoever reads our pages must bring; empty where none is set."""
    return environment.get(TOKEN, "").strip()


def read_webhook(environment: Mapping[str, str], form: str) -> Webhook | None:
    """Return where messages of that form go, None for nowhere; raises BadConfiguration."""
    url, key = (environment.get(name, "").strip() for name in (URL, KEY))
    if form == "pagerduty":
        if not key and url:
            raise BadConfiguration(
                f"{URL} is set and alerts are for PagerDuty, but {KEY} is not: set it to the integration key "
                "of an Events API v2 integration"
            )
        return Webhook(check_url(url or PAGERDUTY_URL), key) if key else None
    return Webhook(check_url(url)) if url else None


def check_url(url: str) -> str:
    """Return the address; raises BadConfiguration without telling it."""
    try:
        parts = urlsplit(url)
        right = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        right = False
    if not right or not url.isascii() or not url.isprintable() or " " in url:
        raise BadConfiguration(
            f"{URL} (in the environment; not shown, for it is a secret): it must be a URL that begins with "
            "https:// or http://"
        )
    return url
