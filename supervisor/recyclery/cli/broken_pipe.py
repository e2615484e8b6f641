"""Ends a command quietly whose output is not read to its end, as in `recyclery leaks | head -1`."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from typing import TextIO

# As Python itself ends on a broken pipe.
BROKEN_PIPE = 1


def end_on_broken_pipe(command: Callable[[], int]) -> int:
    """Return a command's exit code; BROKEN_PIPE where the reader of its output is gone."""
    try:
        try:
            return command()
        finally:
            # Buffered output has to fail here, where the error can be caught.
            sys.stdout.flush()
    except BrokenPipeError:
        broken = [stream for stream in (sys.stdout, sys.stderr) if is_broken(stream)]
        if not broken:
            raise
        for stream in broken:
            # Python flushes them once more as it ends (its docs: "Note on SIGPIPE").
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        return BROKEN_PIPE


def is_broken(stream: TextIO) -> bool:
    """Return whether a stream is a pipe, or a socket, that nobody reads any more."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
