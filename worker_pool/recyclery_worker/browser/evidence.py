"""Keeps what the browser of a failed block showed, for a person to look at."""

import contextlib
import logging
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from recyclery_worker.browser.bounded import attempt

DIR_VARIABLE = "RECYCLERY_EVIDENCE_DIR"
COLLECT_SECONDS = 3.0  # The hard time limit may follow the soft one closely
KEPT_CASES = 20
PAGE_CHARACTERS = 2_000_000
CONSOLE_LINES = 1000

logger = logging.getLogger(__name__)


class RunningTask(NamedTuple):
    """The Celery task that runs in this thread; its soft time limit is None where it has none."""

    name: str
    id: str
    soft_limit_seconds: float | None


def running_task() -> RunningTask | None:
    """Return the task that runs here; None outside of tasks, and where Celery is not imported."""
    celery: Any = sys.modules.get("celery")
    task = celery.current_task if celery is not None else None
    if not task or not task.request.id:
        return None
    # (hard, soft) of the message; else the task's own, else the app's (celery/app/task.py).
    _, sent = task.request.timelimit or (None, None)
    soft = sent or task.soft_time_limit or task.app.conf.task_soft_time_limit
    return RunningTask(str(task.name), str(task.request.id), float(soft) if soft else None)


def default_dir() -> Path | None:
    """Return the folder in RECYCLERY_EVIDENCE_DIR, None if that is empty; else a private temporary one."""
    named = os.environ.get(DIR_VARIABLE)
    if named is not None:
        return Path(named) if named.strip() else None
    return Path(tempfile.gettempdir()) / f"recyclery-evidence-{os.geteuid()}"


def keep_evidence(driver: Any, error: BaseException, folder: Path) -> Path | None:
    """Write screenshot, page, console log and error into a new folder; return it, None where that fails.

    Takes COLLECT_SECONDS at most; the newest KEPT_CASES folders are kept. A note on the error names the folder.
    """
    try:
        case = make_case(folder)
        (case / "error.txt").write_text("".join(traceback.format_exception(error)))
    except OSError as problem:
        logger.warning("what the browser showed cannot be kept in %s: %s", folder, problem)
        return None
    attempt(partial(write_evidence, driver, case), COLLECT_SECONDS)
    error.add_note(f"What the browser showed: {case}")
    # Other processes may remove cases too; the names begin with the time.
    with contextlib.suppress(OSError):
        for old in sorted(entry for entry in folder.iterdir() if entry.is_dir())[:-KEPT_CASES]:
            shutil.rmtree(old, ignore_errors=True)
    return case


def make_case(folder: Path) -> Path:
    """Create the private folder of one case, named after time and task; raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.geteuid() or folder.is_symlink():
        # Someone else created it before us, in a folder that all may write to.
        raise PermissionError("it is not ours")
    name = time.strftime("%Y%m%d-%H%M%S")
    task = running_task()
    if task is not None:
        name += "-" + re.sub(r"[^\w.]+", "_", task.name)[-60:] + "-" + re.sub(r"\W", "", task.id)[:8]
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))


def write_evidence(driver: Any, case: Path) -> None:
    """Write what can still be read from the browser: address and title, page, console and a screenshot."""
    readers: dict[str, Callable[[], bytes]] = {
        "url.txt": lambda: f"{driver.current_url}\n{driver.title}\n".encode(errors="replace"),
        "console.txt": lambda: read_console(driver),
        "page.html": lambda: driver.page_source[:PAGE_CHARACTERS].encode(errors="replace"),
        "screenshot.png": lambda: bytes(driver.get_screenshot_as_png()),
    }
    for name, read in readers.items():
        with contextlib.suppress(Exception):
            (case / name).write_bytes(read())


def read_console(driver: Any) -> bytes:
    """Return the newest entries of the page's console, one a line."""
    entries = driver.get_log("browser")[-CONSOLE_LINES:]
    lines = [f"{entry['level']} {entry['message']}".replace("\n", "\\n") + "\n" for entry in entries]
    return "".join(lines).encode(errors="replace")
