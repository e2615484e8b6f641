"""`python -m recyclery_worker.check APP`: import a Celery app as a worker would, and say what it is.

Prints one JSON object as the last line: app, celery, broker_url, tasks. Exits 1 with the reason on standard
error when the app cannot be imported. Run apart from the supervisor, which must not carry the app's memory.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

import celery
from celery.app.utils import find_app


def main() -> int:
    """Check the app named by the first argument."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        app = find_app(sys.argv[1])
        app.loader.import_default_modules()
        app.finalize()
        broker_url = app.connection_for_read().as_uri(include_password=True)
    except Exception as error:  # the app's own code may raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        print(f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})", file=sys.stderr)
        return 1
    tasks = sorted(name for name in app.tasks if not name.startswith("celery."))
    print(json.dumps({"app": app.main, "celery": celery.__version__, "broker_url": broker_url, "tasks": tasks}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
