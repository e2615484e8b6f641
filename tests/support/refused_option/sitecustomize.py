"""A Celery that refuses one more option, REFUSED_OPTION, as soon as the file REFUSED_AFTER is there.

Sooner than Celery itself would on a busy machine. Python imports this by itself when its folder is on
PYTHONPATH (see the documentation of `site`).
"""

import os
import sys
import time
from pathlib import Path

if os.environ.get("REFUSED_OPTION") in sys.orig_argv:
    while not Path(os.environ["REFUSED_AFTER"]).exists():
        time.sleep(0.02)
    os._exit(2)
