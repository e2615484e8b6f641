"""What a failed block's browser showed, kept for a person to look at; and the task that it failed in."""

import contextlib
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Running(NamedTuple):
    """A task's name, id and soft time limit in seconds (None: it has none)."""

    name: str
    id: str
    soft_limit_seconds: float | None


def running_task() -> Running | None:
    """Return the task that runs here; None outside of one, and where Celery is not even imported."""
    celery: Any = sys.modules.get("celery")
    task = celery.current_task if celery is not None else None
    if not task or not task.request.id:
        return None
    # (hard, soft) as the sender set them; else the task's own, else the app's (celery/app/task.py).
    _, sent = task.request.timelimit or (None, None)
    soft = sent or task.soft_time_limit or task.app.conf.task_soft_time_limit
    return Running(str(task.name), str(task.request.id), float(soft) if soft else None)


DIR_VARIABLE = "RECYCLERY_EVIDENCE_DIR"
# The hard time limit may follow the soft one closely.
COLLECT_SECONDS = 3.0
KEPT_CASES = 20
PAGE_CHARACTERS = 2_000_000
CONSOLE_LINES = 1000

logger = logging.getLogger(__name__)


def default_dir() -> Path | None:
    """Return the folder that RECYCLERY_EVIDENCE_DIR names, none if empty; else a private temporary one."""
    named = os.environ.get(DIR_VARIABLE)
    if named is not None:
        return Path(named) if named.strip() else None
    return Path(tempfile.gettempdir()) / f"recyclery-evidence-{os.geteuid()}"


def keep_evidence(driver: Any, error: BaseException, folder: Path) -> Path | None:
    """Write screenshot, page, console log and error into a folder of their own; return it, None if it failed.

    Takes COLLECT_SECONDS at most, the newest KEPT_CASES are kept. A note on the error names the folder.
    """
    try:
        case = make_case(folder)
        (case / "error.txt").write_text("".join(traceback.format_exception(error)))
    except OSError as problem:
        logger.warning("what the browser showed cannot be kept in %s: %s", folder, problem)
        return None
    collecting = threading.Thread(target=collect, args=(driver, case), name="browser-evidence", daemon=True)
    with contextlib.suppress(RuntimeError):
        collecting.start()
        collecting.join(COLLECT_SECONDS)
    error.add_note(f"What the browser showed: {case}")
    drop_oldest(folder)
    return case


def make_case(folder: Path) -> Path:
    """Make the folder of one case, named after time and task; only we may look into it. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.geteuid() or folder.is_symlink():
        # Someone made it before us, in a folder that all may write to.
        raise PermissionError("it is not ours")
    name = time.strftime("%Y%m%d-%H%M%S")
    task = running_task()
    if task is not None:
        name += "-" + re.sub(r"[^\w.]+", "_", task.name)[-60:] + "-" + re.sub(r"\W", "", task.id)[:8]
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))


def collect(driver: Any, case: Path) -> None:
    """Write what the browser still tells; what it does not is left out."""
    readers: dict[str, Callable[[Any], bytes]] = {
        "url.txt": read_address,
        "console.txt": read_console,
        "page.html": read_page,
        "screenshot.png": read_screenshot,
    }
    for name, read in readers.items():
        with contextlib.suppress(Exception):
            (case / name).write_bytes(read(driver))


def read_address(driver: Any) -> bytes:
    """Return the page's address and title."""
    return f"{driver.current_url}\n{driver.title}\n".encode(errors="replace")


def read_page(driver: Any) -> bytes:
    """Return the page as it is now, its end cut off if it is very long."""
    page: str = driver.page_source
    return page[:PAGE_CHARACTERS].encode(errors="replace")


def read_screenshot(driver: Any) -> bytes:
    """Return a PNG of the window."""
    picture: bytes = driver.get_screenshot_as_png()
    return picture


def read_console(driver: Any) -> bytes:
    """Return the newest lines of the page's console, one entry a line."""
    entries = driver.get_log("browser")[-CONSOLE_LINES:]
    lines = (f"{entry['level']} {entry['message']}".replace("\n", "\\n") for entry in entries)
    return "".join(f"{line}\n" for line in lines).encode(errors="replace")


def drop_oldest(folder: Path) -> None:
    """Remove all cases but the newest; another process may do the same."""
    with contextlib.suppress(OSError):
        # Their names begin with the time.
        for case in sorted(entry for entry in folder.iterdir() if entry.is_dir())[:-KEPT_CASES]:
            shutil.rmtree(case, ignore_errors=True)
