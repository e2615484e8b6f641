"""A browser on a Selenium Grid, where browsers outgrow one machine."""

import logging
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from recyclery_worker.browser.bounded import BrowserNotStarted, bound_remote
from recyclery_worker.browser.wanted import Wanted
from recyclery_worker.pool.child import reporter

if TYPE_CHECKING:
    from selenium import webdriver

URL_VARIABLE = "SELENIUM_REMOTE_URL"
# A Grid's node has its own work to do at the end of a session.
QUIT_SECONDS = 10.0

logger = logging.getLogger(__name__)


@dataclass
class RemoteSession:
    """A session on the Grid; `uses` counts the blocks that had it."""

    driver: "webdriver.Chrome"
    session_id: str
    started: float = field(default_factory=time.monotonic)
    uses: int = 0
    pid: int | None = None

    def held_bytes(self) -> int:
        """Return 0: its memory is another machine's."""
        return 0

    def end(self) -> None:
        """Close the session; where that cannot be seen to be done, the governor does it when we are dead."""
        self.driver.quit()
        if self.is_closed():
            told = reporter()
            if told is not None:
                told.session_closed(self.session_id)
        else:
            logger.warning("session %s may still be open on the Grid", self.session_id)

    def is_closed(self) -> bool:
        """Tell whether the Grid knows no such session any more."""
        from selenium.webdriver.remote.command import Command  # noqa: PLC0415

        try:
            executor: Any = self.driver.command_executor
            answer = executor.execute(Command.GET_TITLE, {"sessionId": self.session_id})
        except Exception:  # the Grid is away, or its answer is none
            return False
        return "invalid session id" in str(answer.get("value"))


def start_remote(url: str, wanted: Wanted) -> RemoteSession:
    """Open a session on the Grid at this URL; raises BrowserMissing, BrowserNotStarted."""
    remote_class = bound_remote(wanted.command_timeout_seconds, QUIT_SECONDS)
    import urllib3  # noqa: PLC0415
    from selenium.common.exceptions import WebDriverException  # noqa: PLC0415
    from selenium.webdriver.remote.client_config import ClientConfig  # noqa: PLC0415

    parts = urlsplit(url)
    # Apart from the URL, which errors show.
    host = parts.netloc.rpartition("@")[2]
    address = parts._replace(netloc=host).geturl()
    config = ClientConfig(
        address,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        timeout=int(wanted.command_timeout_seconds),
    )
    try:
        driver = remote_class(command_executor=address, options=wanted.make_options(None), client_config=config)
    except (WebDriverException, urllib3.exceptions.HTTPError, OSError) as error:
        raise BrowserNotStarted(
            f"no session on the Grid at {address} ({URL_VARIABLE}): {error}. Is it up, and has it a free slot?"
        ) from error
    session_id = str(driver.session_id)
    told = reporter()
    if told is not None:
        # At once: if this process is killed the governor must know what to close.
        told.session_opened(session_id)
    return RemoteSession(driver, session_id)


def read_url() -> str | None:
    """Return the Grid's URL from the environment, None where browsers run on this machine."""
    return os.environ.get(URL_VARIABLE, "").strip() or None
