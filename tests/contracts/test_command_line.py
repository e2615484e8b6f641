"""The command line: commands, options, arguments and exit codes."""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import product
from contracts.frozen import assert_frozen


def describe(parser: argparse.ArgumentParser, command: str) -> Iterator[str]:
    """Yield the options and arguments of a command and of its subcommands."""
    yield command
    add_late = getattr(parser, "add_late", None)
    if add_late is not None:
        # Arguments that are only added when the command is the one that runs.
        add_late(parser)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, within in action.choices.items():
                yield from describe(within, f"{command} {name}")
        elif not isinstance(action, argparse._HelpAction):
            yield f"{command}: {describe_option(action)}"


def describe_option(action: argparse.Action) -> str:
    """Return the names, the value and the default of an option."""
    words = ["|".join(action.option_strings) or f"argument {action.metavar or action.dest}"]
    if action.nargs != 0:
        words.append(f"{{{','.join(map(str, action.choices))}}}" if action.choices else "VALUE")
    if action.nargs not in (None, 0):
        words.append(f"x{action.nargs}")
    if isinstance(action, argparse._AppendAction):
        words.append("repeatable")
    if action.required and action.option_strings:
        words.append("required")
    if action.default not in (None, False, [], argparse.SUPPRESS):
        words.append(f"= {action.default!r}")
    return " ".join(words)


def test_the_command_line_has_the_frozen_commands_and_options() -> None:
    assert_frozen("command_line", describe(product.command_line(), "recyclery"))


def test_the_exit_codes_are_the_frozen_numbers() -> None:
    assert product.exit_codes() == {
        "stopped and drained": 0,
        "something had to be killed": 1,
        "wrong usage": 2,
        "a pool gave up": 70,
        "bad configuration": 78,
    }


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["no-such-command"], 2),
        (["run", "--grace", "soon"], 78),
        (["run", "--config", "/no/such/file"], 78),
        (["routes", "-A", "no_such_app"], 78),
        (["leaks", "--since", "yesterday", "--history", "/no/such/file"], 1),
        (["leaks", "--compare", "2h", "--history", "history.db"], 2),
        (["status"], 1),
        (["health"], 1),
    ],
)
def test_a_command_exits_with_the_frozen_code(arguments: list[str], code: int, tmp_path: Path) -> None:
    product.record_runs(tmp_path / "history.db", 1, kinds=())
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "recyclery",
            *(str(tmp_path / "history.db") if a == "HISTORY" else a for a in arguments),
        ],
        env={"PATH": "/usr/bin:/bin", "CELERY_APP": "app", "RECYCLERY_RUNTIME_DIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
