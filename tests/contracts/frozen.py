"""Compares the product with a frozen contract: a text file in this folder, one line for each promise."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
TYPES = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "object"}


def frozen(contract: str, part: str = "") -> list[str]:
    """Return the lines of a contract, or of one part of it, without comments and blank lines."""
    lines = (FOLDER / f"{contract}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("# ") and line.startswith(part)]


def assert_frozen(contract: str, found: Iterable[str], part: str = "") -> None:
    """Fail with a diff unless the product has exactly the frozen lines, in any order."""
    promised, present = frozen(contract, part), list(dict.fromkeys(part + line for line in found))
    gone = [f"- {line}" for line in promised if line not in set(present)]
    new = [f"+ {line}" for line in present if line not in set(promised)]
    if gone or new:
        pytest.fail(
            f"The product breaks the contract tests/contracts/{contract}.txt, which users rely on.\n"
            "Lines with - are broken: restore them. Lines with + are new: add them to the file if intended.\n\n"
            + "\n".join([*gone, *new]),
            pytrace=False,
        )


def widen(contract: str, found: Iterable[str], part: str = "") -> list[str]:
    """Replace the types in lines `path: types` by the frozen ones where these include them."""
    promised = {path: types for path, _, types in (line.rpartition(": ") for line in frozen(contract, part))}
    lines = []
    for line in found:
        path, colon, types = line.rpartition(": ")
        wider = promised.get(part + path, types)
        lines.append(f"{path}{colon}{wider if {*types.split('|')} <= {*wider.split('|')} else types}")
    return lines


def shape(*documents: Any, maps: Iterable[str] = ()) -> list[str]:
    """Return a line `path: types` for each value in JSON documents of one kind.

    `maps` are the paths of objects whose keys are data, such as pool names; these keys become `*`.
    """
    kinds: dict[str, set[str]] = {}
    for document in documents:
        for path, kind in walk(document, "", frozenset(maps)):
            kinds.setdefault(path, set()).add(kind)
    return [
        f"{path}: {'|'.join(sorted(found - ({'int'} if 'float' in found else set())))}"
        for path, found in kinds.items()
        # Objects and lists are left out if they have lines for their content.
        if not (
            found <= {"object", "list"} and any(other.startswith((f"{path}.", f"{path}[]")) for other in kinds)
        )
        and path
    ]


def walk(value: Any, path: str, maps: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield each path with the type of its value."""
    yield path, TYPES[type(value)]
    if isinstance(value, dict):
        for key, each in value.items():
            name = "*" if path in maps else key
            yield from walk(each, f"{path}.{name}" if path else name, maps)
    elif isinstance(value, list):
        for each in value:
            yield from walk(each, f"{path}[]", maps)
