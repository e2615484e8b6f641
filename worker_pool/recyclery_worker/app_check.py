"""`python -m recyclery_worker.app_check APP`: import a Celery app as a worker would, and say what it is.

Prints one JSON object and nothing else: app, celery, broker_url, tasks, and `browser`: what is amiss with the
browser that its tasks use, empty if nothing is. Exits with the reason on standard error: 1 when the app cannot
be imported, 3 when no driver fits its browser. Run apart from the supervisor, which must not carry the app's
memory.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

import celery
from celery.app.utils import find_app


def find_browser_early() -> str:
    """Find the pair that `browser()` will use, where the app has imported that and no Grid is named.

    Returns what is amiss where there is no Chrome at all, which may be meant so, else an empty text. Raises
    BrowserMissing where there is a Chrome and no driver fits it.
    """
    if "recyclery_worker.browser" not in sys.modules or os.environ.get("SELENIUM_REMOTE_URL", "").strip():
        return ""
    # Importing it would look like the app's doing.
    from recyclery_worker.browser.driver import ChromeMissing, find_browser  # noqa: PLC0415

    try:
        find_browser()
    except ChromeMissing as missing:
        return str(missing)
    return ""


BROWSER_DOES_NOT_FIT = 3


def main() -> int:
    """Check the app named by the first argument."""
    sys.path.insert(0, str(Path.cwd()))
    # What the app's own modules print is not the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        app = find_app(sys.argv[1])
        app.loader.import_default_modules()
        app.finalize()
    except (Exception, SystemExit) as error:  # the app's own code may raise anything, or leave
        last = traceback.extract_tb(error.__traceback__)[-1]
        return refuse(f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})")
    try:
        broker_url = app.connection_for_read().as_uri(include_password=True)
    except ValueError:
        # The error would show a part of the password.
        return refuse("its broker URL cannot be read: percent-encode what is special in the password (/ # @ :)")
    try:
        browser = find_browser_early()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return BROWSER_DOES_NOT_FIT
    tasks = sorted(name for name in app.tasks if not name.startswith("celery."))
    document = {
        "app": app.main,
        "celery": celery.__version__,
        "broker_url": broker_url,
        "tasks": tasks,
        "browser": browser,
    }
    os.write(answer, json.dumps(document).encode())
    return 0


def refuse(reason: str) -> int:
    """Say why on standard error; return the exit status."""
    print(reason, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
