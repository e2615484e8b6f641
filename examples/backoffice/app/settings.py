"""Where things are, read from the environment at each call."""

import os

DEFAULT_REDIS_URL = "redis://localhost:6379/0"
DEFAULT_SITE_URL = "http://127.0.0.1:8600"
DEFAULT_SITE_PASSWORD = "demo"  # noqa: S105 - the made-up site's made-up password


def redis_url() -> str:
    """Give the URL of Redis: REDIS_URL, else CELERY_BROKER_URL, else the one on this machine."""
    return os.environ.get("REDIS_URL") or os.environ.get("CELERY_BROKER_URL") or DEFAULT_REDIS_URL


def broker_url() -> str:
    """Give the URL of Celery's broker: CELERY_BROKER_URL, else Redis."""
    return os.environ.get("CELERY_BROKER_URL") or redis_url()


def site_url() -> str:
    """Give the tax office's URL, without a slash at its end."""
    return (os.environ.get("SITE_URL") or DEFAULT_SITE_URL).rstrip("/")


def site_password() -> str:
    """Give the password to log in there with."""
    return os.environ.get("SITE_PASSWORD") or DEFAULT_SITE_PASSWORD
