"""`recyclery top`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from recyclery.config.paths import find_runtime_dir
from recyclery.top.frame import draw_page
from recyclery.top.live import make_screen, read_update, watch
from recyclery.top.text import paint_plain, paint_styled
from recyclery.top.view import Disconnected


def show(*, once: bool) -> int:
    """Show the supervisor live, or one frame if requested or without a terminal. Return the exit code."""
    directory = find_runtime_dir(os.environ)
    if once or not (os.isatty(0) and os.isatty(1)) or os.environ.get("TERM") == "dumb":
        return print_page(directory)
    return watch(directory, paint_plain if os.environ.get("NO_COLOR") else paint_styled)


def print_page(directory: Path) -> int:
    """Print one frame; return 1 with a message if no supervisor answers."""
    status = read_update(directory)
    if isinstance(status, Disconnected):
        print(f"recyclery: {status.reason}", file=sys.stderr)
        return 1
    screen = make_screen(shutil.get_terminal_size((80, 24)))
    print("\n".join(map(paint_plain, draw_page(status, screen))))
    return 0
