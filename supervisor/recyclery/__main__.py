"""The command `recyclery`, and `python -m recyclery`."""

import contextlib
import os
import sys
from typing import NoReturn

from recyclery.cli.parser import main as run_command


def main() -> NoReturn:
    """Run a command and end with its exit code."""
    code = run_command()
    if "recyclery.celery_app.routing" in sys.modules:
        end_with_app(code)
    sys.exit(code)


def end_with_app(code: int) -> NoReturn:
    """End at once, after a command that imported the app: its threads and `atexit` handlers must not keep us.

    What the app has started there ends too, as it may hold our output open: each worker starts its own.
    """
    # Imported lazily: most commands import no app.
    import psutil  # noqa: PLC0415

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # It has ended
            process.kill()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
