"""`recyclery top` in a terminal of a given size, and what a person sees there."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.terminal import Terminal, become_terminals_session

# A frame goes from the home position to the erasure of what is below it; other sequences are styles.
FRAME = re.compile(r"\x1b\[H(.*?)\x1b\[J", re.DOTALL)
STYLE = re.compile(r"\x1b\[[0-9;]*[mK]")


class Watched:
    """The running command and its terminal."""

    def __init__(self, process: "subprocess.Popen[bytes]", terminal: Terminal) -> None:
        self.process = process
        self.terminal = terminal

    def frame(self) -> str:
        """Return the last whole frame without its styles; nothing before the first."""
        frames = FRAME.findall(self.terminal.screen)
        return STYLE.sub("", frames[-1]).replace("\r", "") if frames else ""

    def resize(self, columns: int, lines: int) -> None:
        """Give the window another size."""
        set_size(self.terminal, columns, lines)


def set_size(terminal: Terminal, columns: int, lines: int) -> None:
    """Set a terminal's size; whoever runs in it is told."""
    fcntl.ioctl(terminal.theirs, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))


@contextmanager
def watched(
    runtime_dir: Path, columns: int = 80, lines: int = 24, environment: Mapping[str, str] = {}
) -> Iterator[Watched]:
    """Run `recyclery top` until the block ends."""
    terminal = Terminal()
    set_size(terminal, columns, lines)
    with subprocess.Popen(
        [sys.executable, "-m", "recyclery", "top"],
        env={**os.environ, "TERM": "xterm", "RECYCLERY_RUNTIME_DIR": str(runtime_dir), **environment},
        stdin=terminal.theirs,
        stdout=terminal.theirs,
        stderr=terminal.theirs,
        preexec_fn=become_terminals_session,  # noqa: PLW1509  # the child of a test
    ) as process:
        try:
            yield Watched(process, terminal)
        finally:
            process.kill()
