"""Python's time of day, stepped by as many seconds as the file STEP_SECONDS_FILE says."""

import os
import time
from pathlib import Path

real_time = time.time
file = Path(os.environ["STEP_SECONDS_FILE"])


def stepped_time() -> float:
    """Return the time of day on a machine whose clock was set."""
    return real_time() + float(file.read_text())


time.time = stepped_time
