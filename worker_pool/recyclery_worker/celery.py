"""`python -m recyclery_worker.celery`: the command `celery`, for a worker that the supervisor starts.

Our defaults are set before the app is imported: a task takes settings over when it is first used, which may be
at import.
"""

import os
import sys
from pathlib import Path

from celery import maybe_patch_concurrency


def main() -> None:
    # PID 1 gives it a pipe without an end, at which an app that reads its input would wait.
    with Path(os.devnull).open() as empty:
        os.dup2(empty.fileno(), 0)
    # At HUP Celery starts the worker again by these arguments. By its path, this file would put its own folder
    # into sys.path, and not the working directory. Apps ask whether this ends in "celery".
    sys.argv[0] = "-mrecyclery_worker.celery"
    # For gevent and eventlet, before anything else of Celery is imported, as its own command does it.
    maybe_patch_concurrency()
    from recyclery_worker import plugin  # noqa: PLC0415
    from recyclery_worker.delivery.cut_off import exit_status  # noqa: PLC0415
    from recyclery_worker.delivery.defaults import set_defaults  # noqa: PLC0415
    from recyclery_worker.link import keep_environment  # noqa: PLC0415
    from recyclery_worker.tuning.isolation import install_if_tuned  # noqa: PLC0415

    keep_environment()
    set_defaults()
    plugin.install()
    install_if_tuned()
    # It imports what others have added to the command, and so perhaps the app.
    from celery.bin.celery import celery as command  # noqa: PLC0415

    try:
        command(auto_envvar_prefix="CELERY", prog_name="celery")
    except SystemExit as end:
        raise SystemExit(exit_status(end.code)) from None


if __name__ == "__main__":
    main()
