"""The command `recyclery demo`: a storm of leaking browser tasks in a cage the size of a container.

Only what that command needs may live here; nothing else in Recyclery imports it.
"""

import argparse

from recyclery.demo.options import add_arguments

__all__ = ["add_arguments", "main"]


def main(args: argparse.Namespace) -> int:
    """Run the demo with the parsed arguments and return its exit status."""
    from recyclery.demo.command import run_command  # noqa: PLC0415 - the parser must stay cheap to import

    return run_command(args)
