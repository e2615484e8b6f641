"""The sample app on a machine that is out of processes for a while: forks 2 to 4 of the worker fail."""

import errno
import itertools
import os

from sample_app import app  # type: ignore[import-not-found]

__all__ = ["app"]

count = itertools.count(1)
real_fork = os.fork


def fork() -> int:
    """Fork, or fail as fork(2) does at the limit of processes."""
    if next(count) in {2, 3, 4}:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return real_fork()


os.fork = fork
