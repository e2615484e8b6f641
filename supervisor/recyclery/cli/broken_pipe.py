"""A command whose output is not read to its end (`recyclery leaks | head -1`) ends there, without a word."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from typing import TextIO

# As Python itself ends on a broken pipe.
CUT_OFF = 1


def end_where_cut_off(command: Callable[[], int]) -> int:
    """Return a command's exit code; CUT_OFF where the reader of its output went away."""
    try:
        try:
            return command()
        finally:
            # What is still buffered breaks here, and not where nobody can catch it.
            sys.stdout.flush()
    except BrokenPipeError:
        cut_off = [stream for stream in (sys.stdout, sys.stderr) if is_cut_off(stream)]
        if not cut_off:
            raise
        for stream in cut_off:
            # Python flushes them once more as it ends (its docs: "Note on SIGPIPE").
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        return CUT_OFF


def is_cut_off(stream: TextIO) -> bool:
    """Tell whether a stream is a pipe, or a socket, that nobody reads any more."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
