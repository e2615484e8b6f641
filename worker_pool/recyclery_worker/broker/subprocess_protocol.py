"""What the modules share that the supervisor's commands run as programs, because they import the user's app.

They exit with the reason on standard error: 1 when the app cannot be imported, 3 when its broker is another
than Redis, 4 when that does not answer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CANNOT_IMPORT, NOT_REDIS, NO_ANSWER = 1, 3, 4


def serve(name: str, work: Callable[[Any, int], None], *, else_say: str) -> int:
    """Do the work with the app of that name and a descriptor for the answer; return the exit status.

    `else_say` is what is said where the broker is another than Redis.
    """
    sys.path.insert(0, str(Path.cwd()))
    # What the app's own modules print is not the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    from celery.app.utils import find_app  # noqa: PLC0415

    try:
        app = find_app(name)
        app.loader.import_default_modules()
    except (Exception, SystemExit) as error:  # the app's own code may raise anything, or leave
        return refuse(CANNOT_IMPORT, f"{type(error).__name__}: {error}")
    try:
        with app.connection_for_write() as connection:
            if connection.transport.driver_type != "redis":
                return refuse(NOT_REDIS, else_say)
        work(app, answer)
    except Exception as error:  # kombu and redis raise errors of many kinds
        return refuse(NO_ANSWER, f"{type(error).__name__}: {error}")
    return 0


def refuse(status: int, reason: str) -> int:
    """Say why on standard error; return the exit status."""
    print(reason, file=sys.stderr)
    return status
