"""Compares what the product has with what was frozen: one line of tests/contracts/NAME.txt for each promise."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
TYPES = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "object"}


def frozen(contract: str, part: str = "") -> list[str]:
    """Return the lines of a contract, or of a part of it; blank ones and those that begin with `# ` explain."""
    lines = (FOLDER / f"{contract}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("# ") and line.startswith(part)]


def assert_frozen(contract: str, found: Iterable[str], part: str = "") -> None:
    """Fail with every line by which the product differs from a contract or a part; order means nothing."""
    promised, present = frozen(contract, part), list(dict.fromkeys(part + line for line in found))
    gone = [f"- {line}" for line in promised if line not in set(present)]
    new = [f"+ {line}" for line in present if line not in set(promised)]
    if gone or new:
        pytest.fail(
            f"This is a contract: users read it. tests/contracts/{contract}.txt differs from the product.\n"
            "What is gone (-) breaks them: undo it. What is new (+) may be added to the file on purpose.\n\n"
            + "\n".join([*gone, *new]),
            pytrace=False,
        )


def widen(contract: str, found: Iterable[str], part: str = "") -> list[str]:
    """Return lines `path: types` with the frozen types where those found are among them: a run has not all."""
    promised = {path: types for path, _, types in (line.rpartition(": ") for line in frozen(contract, part))}
    lines = []
    for line in found:
        path, colon, types = line.rpartition(": ")
        wider = promised.get(part + path, types)
        lines.append(f"{path}{colon}{wider if {*types.split('|')} <= {*wider.split('|')} else types}")
    return lines


def shape(*documents: Any, maps: Iterable[str] = ()) -> list[str]:
    """Return the paths of all values in JSON documents of one kind, each with its types.

    `maps` are the paths of objects whose keys are names of users' own; those are written `*`.
    """
    kinds: dict[str, set[str]] = {}
    for document in documents:
        for path, kind in walk(document, "", frozenset(maps)):
            kinds.setdefault(path, set()).add(kind)
    return [
        f"{path}: {'|'.join(sorted(found - ({'int'} if 'float' in found else set())))}"
        for path, found in kinds.items()
        # What holds others has lines for those, unless it is empty.
        if not (
            found <= {"object", "list"} and any(other.startswith((f"{path}.", f"{path}[]")) for other in kinds)
        )
        and path
    ]


def walk(value: Any, path: str, maps: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield each path with the type of the value there."""
    yield path, TYPES[type(value)]
    if isinstance(value, dict):
        for key, each in value.items():
            name = "*" if path in maps else key
            yield from walk(each, f"{path}.{name}" if path else name, maps)
    elif isinstance(value, list):
        for each in value:
            yield from walk(each, f"{path}[]", maps)
