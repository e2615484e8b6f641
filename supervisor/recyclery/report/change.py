"""`recyclery set`: change settings of the running supervisor."""

from __future__ import annotations

import os
import sys

from recyclery.config.paths import find_runtime_dir
from recyclery.control.client import Declined, NoSupervisor, ask_governor
from recyclery.init import exit_codes


def set_values(table: str, assignments: list[str]) -> int:
    """Change what `key=value` texts say; return the exit code."""
    values = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip() or not value.strip():
            print(f"recyclery: {assignment!r} is not of the form key=value", file=sys.stderr)
            return exit_codes.WRONG_USAGE
        values[key.strip()] = value.strip()
    try:
        answer = ask_governor(find_runtime_dir(os.environ), "set", table=table, values=values)
    except NoSupervisor as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return 1
    except Declined as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return exit_codes.BAD_CONFIGURATION
    print(answer["done"])
    return 0
