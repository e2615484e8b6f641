"""Exit codes of `recyclery run`, which other commands use too, and how a command that fails ends."""

import sys

DRAINED = 0
KILLED = 1
WRONG_USAGE = 2
GAVE_UP = 70
BAD_CONFIGURATION = 78
INTERRUPTED = 130


def fail(error: object, code: int) -> int:
    """Print an error message to standard error; return the exit code."""
    print(f"recyclery: {error}", file=sys.stderr)
    return code
