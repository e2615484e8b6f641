"""`recyclery parked`, run as people do."""

import os
import subprocess
import sys

from support.supervised import SUPPORT


def run_parked(redis_url: str, *arguments: str, app: str = "sample_app") -> "subprocess.CompletedProcess[str]":
    """Run it over the sample app."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "RECYCLERY_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "recyclery", "parked", *arguments],
        env={**clean, "CELERY_APP": app, "PYTHONPATH": str(SUPPORT), "REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
