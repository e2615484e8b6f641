"""Commands whose module is imported late: the parser names it in a string."""

import argparse
import pkgutil
import re
from pathlib import Path
from typing import get_type_hints

import pytest

from recyclery.cli import parser

TARGETS = re.findall(r'"(recyclery[a-z0-9_.]+:\w+)"', Path(parser.__file__).read_text(encoding="utf-8"))


def test_the_parser_names_late_commands() -> None:
    assert "recyclery.pid1.run:run" in TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_a_late_command_takes_the_parsed_arguments(target: str) -> None:
    function = pkgutil.resolve_name(target)
    assert get_type_hints(function) == {"args": argparse.Namespace, "return": int}
