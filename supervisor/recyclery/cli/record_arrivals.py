"""`recyclery trace record`: when tasks come to a queue in service, for `recyclery tune --trace`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from recyclery.celery_app.routing import ONE_CONTAINERS
from recyclery.common import exit_codes
from recyclery.config import fields
from recyclery.config.keys import BadConfiguration, checked
from recyclery.config.sources import CommandLine, load

ON_THE_LINE = "on the command line"
seconds_check = fields.number_of("seconds", "s", 1, 604_800)


def record(args: argparse.Namespace) -> int:
    """Record the arrivals at a queue to standard output."""
    try:
        everywhere = {key: value for key, value in os.environ.items() if key not in ONE_CONTAINERS}
        settings = load(CommandLine(config=args.config, app=args.app), everywhere)
        (queue,) = checked(fields.queues, "--queue", [args.queue], ON_THE_LINE)
        seconds = checked(seconds_check, "--seconds", args.seconds, ON_THE_LINE)
    except BadConfiguration as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return exit_codes.BAD_CONFIGURATION
    # A process of its own, which may import Celery and the app.
    command = [sys.executable, "-m", "recyclery_worker.tuned.trace", settings.app, queue, str(seconds)]
    try:
        return 1 if subprocess.run(command, check=False).returncode else 0
    except KeyboardInterrupt:
        return 0
