"""overhead_app: not a benchmark; the Celery app whose one task holds the processes to be watched."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress

import redis
from celery import Celery

url = os.environ.get("BENCH_REDIS_URL", "")
app = Celery("overhead", broker=url)
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=1)

# What chromedriver gives a browser, as far as it keeps an idle one quiet.
CHROMIUM = (
    *("chromium", "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"),
    *("--no-first-run", "--disable-background-networking", "--disable-sync", "--disable-component-update"),
    *("--disable-default-apps", "--remote-debugging-port=0", "--password-store=basic"),
)
# A browser has started all its helpers when no further one has come for this long.
COMPLETE_SECONDS = 1.0
# Two of a browser's eleven processes, its crashpad handlers, lead sessions of their own.
IN_SESSION, IN_ALL = 9, 11


@app.task
def hold(kind: str, count: int) -> None:
    """Start `count` processes, or a browser's worth more, say so, and end them when told to.

    A running task owns what it started: nothing takes it for leftovers.
    """
    if os.getsid(0) != os.getpid():
        # Stock Celery's child leads no session; ours does.
        os.setsid()
    # Without a timeout of its own: it may wait for minutes.
    client = redis.Redis(unix_socket_path=url.removeprefix("redis+socket://"), socket_timeout=None)
    started: list[subprocess.Popen[bytes]] = []
    profiles = tempfile.mkdtemp(prefix="profiles-")
    try:
        least = count if kind == "sleep" else math.ceil(count * IN_SESSION / IN_ALL)
        while len(session_members()) < least:
            if kind == "sleep":
                started.append(subprocess.Popen(["sleep", "86400"]))
            else:
                started.append(start_chromium(f"{profiles}/{len(started)}"))
        client.rpush("overhead:held", json.dumps({"pid": os.getpid(), "started": len(started)}))
        client.blpop(["overhead:release"])
    finally:
        for pid in session_members():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in started:
            process.wait()
        shutil.rmtree(profiles, ignore_errors=True)


def start_chromium(profile: str) -> subprocess.Popen[bytes]:
    """Start a browser on an empty page and wait until its helpers are there."""
    browser = subprocess.Popen(
        [*CHROMIUM, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seen, changed = 0, time.monotonic()
    while time.monotonic() - changed < COMPLETE_SECONDS:
        if browser.poll() is not None:
            raise RuntimeError(f"chromium ended at once, status {browser.returncode}")
        members = len(session_members())
        if members != seen:
            seen, changed = members, time.monotonic()
        time.sleep(0.1)
    return browser


def session_members(leader: int | None = None) -> list[int]:
    """Return the processes in a session (else ours) but its leader."""
    leader = os.getpid() if leader is None else leader
    members = []
    for entry in os.listdir("/proc"):  # noqa: PTH208  # far cheaper than a Path's
        with suppress(ProcessLookupError):
            if entry.isdigit() and int(entry) != leader and os.getsid(int(entry)) == leader:
                members.append(int(entry))
    return members
