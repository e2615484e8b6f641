"""An app with a Request class of its own, which raises at some tasks, or as RAISES says at every one."""

import os
from typing import Any

from celery import Celery
from celery.worker.request import Request

url = os.environ["REDIS_URL"]
app = Celery("own_request", broker=url, backend=url)


class OwnRequest(Request):
    """Wants what not every message has."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if os.environ.get("RAISES") == "all" or "odd" in self.argsrepr:
            raise LookupError(f"no tenant for {self.id}")

    @property
    def time_limits(self) -> Any:
        """Asked for as it begins."""
        if os.environ.get("RAISES") == "late":
            raise LookupError(f"no tenant for {self.id}")
        return self._time_limits

    @time_limits.setter
    def time_limits(self, limits: Any) -> None:
        self._time_limits = limits


class OwnTask(app.Task):  # type: ignore[misc,name-defined]
    """Uses it."""

    Request = OwnRequest


@app.task(base=OwnTask)
def echo(word: str) -> str:
    """Return the word."""
    return word
