"""`recyclery top`."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from recyclery.config.paths import find_runtime_dir
from recyclery.top.frame import Setting, draw_page
from recyclery.top.live import look, watch
from recyclery.top.text import paint_plain, paint_styled
from recyclery.top.view import Away


def show(*, once: bool) -> int:
    """Show the supervisor live; once where that is asked for or nothing else can be. Return the exit code."""
    directory = find_runtime_dir(os.environ)
    if once or not can_be_live(os.environ):
        return print_page(directory)
    return watch(directory, paint_plain if os.environ.get("NO_COLOR") else paint_styled)


def can_be_live(environment: Mapping[str, str]) -> bool:
    """Tell whether somebody can see a screen and press keys."""
    return os.isatty(0) and os.isatty(1) and environment.get("TERM") != "dumb"


def print_page(directory: Path) -> int:
    """Print one frame; return 1 with a message when there is no supervisor to ask."""
    answer = look(directory)
    if isinstance(answer, Away):
        print(f"recyclery: {answer.reason}", file=sys.stderr)
        return 1
    columns, lines = shutil.get_terminal_size((80, 24))
    setting = Setting(
        width=columns,
        height=lines,
        host=os.uname().nodename,
        clock=time.strftime("%H:%M:%S %Z"),
        now=time.monotonic(),
    )
    print("\n".join(map(paint_plain, draw_page(answer.status, setting))))
    return 0
