"""`recyclery trace record`: when tasks come to a queue in service, for `recyclery tune --trace`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from recyclery.common import exit_codes
from recyclery.config.fields import BadConfiguration, checked, number_of, parse_queues
from recyclery.config.sources import ON_THE_LINE, load_settings, read_command_line

parse_seconds = number_of("seconds", 1, 604_800)


def record(args: argparse.Namespace) -> int:
    """Record the arrivals at a queue to standard output."""
    try:
        settings = load_settings(read_command_line(args), os.environ)
        (queue,) = checked(parse_queues, "--queue", [args.queue], ON_THE_LINE)
        seconds = checked(parse_seconds, "--seconds", args.seconds, ON_THE_LINE)
    except BadConfiguration as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return exit_codes.BAD_CONFIGURATION
    # A process of its own, which may import Celery and the app.
    command = [sys.executable, "-m", "recyclery_worker.tuning.arrivals", settings.app, queue, str(seconds)]
    try:
        return 1 if subprocess.run(command, check=False).returncode else 0
    except KeyboardInterrupt:
        return 0
