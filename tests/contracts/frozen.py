"""Compares what the product has with what was frozen: one line of tests/contracts/NAME.txt for each promise."""

from collections.abc import Iterable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def frozen(contract: str) -> list[str]:
    """Return the lines of a contract; blank ones and those that begin with `# ` explain."""
    lines = (FOLDER / f"{contract}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("# ")]


def assert_frozen(contract: str, found: Iterable[str]) -> None:
    """Fail with every line by which the product differs from a contract; their order means nothing."""
    promised, present = frozen(contract), list(dict.fromkeys(found))
    gone = [f"- {line}" for line in promised if line not in set(present)]
    new = [f"+ {line}" for line in present if line not in set(promised)]
    if gone or new:
        pytest.fail(
            f"This is a contract: users read it. tests/contracts/{contract}.txt differs from the product.\n"
            "What is gone (-) breaks them: undo it. What is new (+) may be added to the file on purpose.\n\n"
            + "\n".join([*gone, *new]),
            pytrace=False,
        )
