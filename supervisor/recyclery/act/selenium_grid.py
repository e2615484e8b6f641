"""Ends sessions on a Selenium Grid (W3C WebDriver, "Delete Session") for dead children."""

import asyncio
import base64
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from recyclery.decide.actions import EndGridSession, Outcome

GRID_ANSWER_SECONDS = 5.0
GRID_TRIES = 3
GRID_RETRY_SECONDS = 1.0
NO_SUCH_SESSION = 404


class Grid:
    """The remote end at an HTTP URL; a user and password in it are sent, but never logged."""

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(url)
        parts = urlsplit(url)
        self.address = parts.netloc.rpartition("@")[2]
        """Host and port, for the log."""
        self._base = urlunsplit((parts.scheme, self.address, parts.path.rstrip("/"), "", ""))
        self._headers = {}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"

    def end(self, session: str) -> str | None:
        """End one session; return None when it is gone, else why not. Blocks: call it in a thread."""
        for _ in range(GRID_TRIES - 1):
            if self._delete(session) is None:
                return None
            time.sleep(GRID_RETRY_SECONDS)
        return self._delete(session)

    def _delete(self, session: str) -> str | None:
        try:
            request = urllib.request.Request(  # noqa: S310  # http or https, see __init__
                f"{self._base}/session/{quote(session, safe='')}", method="DELETE", headers=self._headers
            )
            with urllib.request.urlopen(request, timeout=GRID_ANSWER_SECONDS):  # noqa: S310
                return None
        except urllib.error.HTTPError as error:
            error.close()
            # It has ended by itself, or timed out.
            return None if error.code == NO_SUCH_SESSION else f"HTTP {error.code}"
        except urllib.error.URLError as error:
            return str(error.reason)
        except (OSError, HTTPException, ValueError) as error:
            return str(error) or type(error).__name__


async def end_grid_session(action: EndGridSession, url: str) -> Outcome:
    """End a dead child's session on the Grid at this URL, in a thread of its own."""
    try:
        grid = Grid(url)
    except ValueError:
        why = "the supervisor has no usable SELENIUM_REMOTE_URL"
        return Outcome(done=False, line=f"{action.summary}; not done: {why}")
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[str | None] = loop.create_future()

    def work() -> None:
        why = grid.end(action.session)
        # The loop is closed if the governor has exited meanwhile.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(ended.set_result, why)

    # Not one of the loop's threads: the ticks need those, and the loop waits for them at its end.
    threading.Thread(target=work, name="grid", daemon=True).start()
    if (failure := await ended) is not None:
        tries = f"{GRID_TRIES} tries at {grid.address}"
        return Outcome(done=False, line=f"{action.summary}; not done in {tries}: {failure}")
    return Outcome(done=True, line=f"{action.summary}; ended at {grid.address}")
