#!/usr/bin/env python
"""Check that every task's queue has a pool and every pool has tasks: `recyclery routes` for this app.

Takes the options of `recyclery routes`. The app is app.infrastructure.celery unless CELERY_APP or -A names
another; it is looked for beside this script's folder, as in a backend, else it is the example back office.
"""

import os
import sys
from pathlib import Path

from recyclery.cli.parser import main

APP = "app.infrastructure.celery"
BACKEND = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    if (BACKEND / "app" / "infrastructure" / "celery").is_dir():
        os.chdir(BACKEND)
    elif "CELERY_APP" not in os.environ and not Path("app").is_dir():
        os.chdir(BACKEND / "examples" / "backoffice")
    os.environ.setdefault("CELERY_APP", APP)
    sys.exit(main(["routes", *sys.argv[1:]]))
