"""`recyclery demo`: a storm of leaking browser tasks in a cage the size of a container.

It runs from a clone and is in no wheel; benchmarks and tests use its parts, the product none.
"""

import argparse

from recyclery_demo.options import add_arguments

__all__ = ["add_arguments", "main"]


def main(args: argparse.Namespace) -> int:
    """Run the demo with the parsed arguments and return its exit status."""
    from recyclery_demo.command import run_command  # noqa: PLC0415 - the parser must stay cheap to import

    return run_command(args)
