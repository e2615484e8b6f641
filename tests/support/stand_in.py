"""`recyclery` with commands of the test's own for workers: python -m support.stand_in run --pool slow.

A pool's worker is the shell command in STAND_IN_<NAME>; all else is the real thing. For what concerns PID 1
alone, and would only be slower with Celery.
"""

import os
import sys

from recyclery.cli import parser as cli
from recyclery.config.settings import Pool, Settings
from recyclery.pid1 import run
from recyclery.pid1 import supervisord_conf as programs


def worker_command(settings: Settings, pool: Pool, slot: str) -> list[str]:
    """Return the test's command for a pool."""
    return ["/bin/sh", "-c", os.environ[f"STAND_IN_{pool.name.upper()}"]]


def check_app(app: str) -> str:
    """Say where the broker would be: nobody asks it for work."""
    return "memory://"


if __name__ == "__main__":
    programs.worker_command = worker_command
    run.check_app = check_app
    sys.exit(cli.main())
