"""Secrets: read from the environment only, as the settings are stored in a file and shown."""

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
    """Where alerts are sent, and for PagerDuty the integration's key. The address is a secret itself."""

    url: str = field(repr=False)
    key: str = field(default="", repr=False)


def read_token(environment: Mapping[str, str]) -> str:
    """Return the token that HTTP requests must have; empty where none is set."""
    return environment.get(TOKEN, "").strip()


def read_webhook(environment: Mapping[str, str], form: str) -> Webhook | None:
    """Return the webhook for alerts in that format, None where none is set; raises BadConfiguration."""
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
    """Return the address; raises BadConfiguration, with a message that does not show it."""
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_valid = False
    if not is_valid or not url.isascii() or not url.isprintable() or " " in url:
        raise BadConfiguration(
            f"{URL} (in the environment; not shown, as it is a secret): it must be a URL that begins with "
            "https:// or http://"
        )
    return url
