"""`python -m recyclery_worker.app_check APP`: import a Celery app as a worker would, and describe it.

Prints one JSON object: app, celery, broker_url, tasks, and `browser`: what is wrong with the browser that its
tasks use, empty if nothing is. Exits with the reason on standard error: 1 when the app cannot be imported, 3
when no driver fits its browser. A process of its own, as the supervisor must not carry the app's memory.
"""

import json
import os
import sys

import celery

from recyclery_worker.broker.connection import (
    CANNOT_IMPORT,
    broker_urls,
    end_with,
    load_app,
    prepare_import,
    refuse,
)

BROWSER_DOES_NOT_FIT = 3


def check_browser() -> str:
    """Find the browser that `browser()` will use, where the app has imported that and no Grid is named.

    Returns the problem where there is no Chrome at all, which may be intended, else an empty text. Raises
    BrowserMissing where there is a Chrome and no driver fits it.
    """
    if "recyclery_worker.browser" not in sys.modules or os.environ.get("SELENIUM_REMOTE_URL", "").strip():
        return ""
    # Not imported before: that would look as if the app had done so.
    from recyclery_worker.browser.driver import ChromeMissing, find_browser  # noqa: PLC0415

    try:
        find_browser()
    except ChromeMissing as missing:
        return str(missing)
    return ""


def main() -> int:
    output = prepare_import()
    try:
        app = load_app(sys.argv[1], finalize=True)
    except ImportError as error:
        return refuse(CANNOT_IMPORT, str(error))
    try:
        broker_url = ";".join(broker_urls(app.connection_for_read()))
    except ValueError:
        # The error would show a part of the password.
        problem = "its broker URL cannot be read: percent-encode what is special in the password (/ # @ :)"
        return refuse(CANNOT_IMPORT, problem)
    try:
        browser = check_browser()
    except RuntimeError as error:
        return refuse(BROWSER_DOES_NOT_FIT, str(error))
    document = {
        "app": app.main,
        "celery": celery.__version__,
        "broker_url": broker_url,
        "tasks": sorted(name for name in app.tasks if not name.startswith("celery.")),
        "browser": browser,
    }
    os.write(output, json.dumps(document).encode())
    return 0


if __name__ == "__main__":
    end_with(main)
