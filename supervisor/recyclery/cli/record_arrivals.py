"""`recyclery trace record`: when tasks arrive at a queue in service, for `recyclery tune --trace`."""

import argparse
import os
import subprocess
import sys

from recyclery.common.exit_codes import BAD_CONFIGURATION, fail
from recyclery.config.fields import BadConfiguration, checked, number_of, parse_queues
from recyclery.config.sources import ON_THE_LINE, load_settings, read_command_line


def record_arrivals(args: argparse.Namespace) -> int:
    """Write the arrivals at a queue to standard output."""
    try:
        settings = load_settings(read_command_line(args), os.environ)
        (queue,) = checked(parse_queues, "--queue", [args.queue], ON_THE_LINE)
        seconds = checked(number_of("seconds", 1, 604_800), "--seconds", args.seconds, ON_THE_LINE)
    except BadConfiguration as error:
        return fail(error, BAD_CONFIGURATION)
    # In a child process, which may import Celery and the app.
    command = [sys.executable, "-m", "recyclery_worker.tuning.arrivals", settings.app, queue, str(seconds)]
    try:
        return 1 if subprocess.run(command, check=False).returncode else 0
    except KeyboardInterrupt:
        return 0
