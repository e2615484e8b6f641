"""With what a task is called while it is tuned: from a file, or by a function of the user's."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple


class Call(NamedTuple):
    """Arguments of one call."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = MappingProxyType({})


class BadCalls(Exception):
    """The calls cannot be had; the message says why and what is wanted."""


WANTED = 'it must be a list of arguments, or {"args": [...], "kwargs": {...}}'


def read_call(value: Any, where: str) -> Call:
    """Return a call from a list or a table; raises BadCalls."""
    if isinstance(value, list | tuple):
        return Call(tuple(value))
    if isinstance(value, dict) and value.keys() <= {"args", "kwargs"}:
        args, kwargs = value.get("args", ()), value.get("kwargs", {})
        if isinstance(args, list | tuple) and isinstance(kwargs, dict):
            return Call(tuple(args), kwargs)
    raise BadCalls(f"{where} is {str(value)[:80]!r}: {WANTED}")


def read_file(path: Path) -> list[Call]:
    """Return the calls in a file of JSON lines; raises BadCalls."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadCalls(f"--args {path}: {getattr(error, 'strerror', None) or error}") from None
    calls = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"--args {path}, line {number}"
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise BadCalls(f"{where} is not JSON ({error.msg}): {WANTED}") from None
            calls.append(read_call(value, where))
    if not calls:
        raise BadCalls(f"--args {path} is empty: one JSON value in each line; {WANTED}")
    return calls


def find_generator(name: str) -> Callable[[], Iterable[Any]]:
    """Return what yields calls, by MODULE:NAME of a function or of something to go through; raises BadCalls."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise BadCalls(f"--generate is {name!r}: it must be MODULE:FUNC, as in app.samples:scrapes")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # the module's own code may raise anything, or leave
        raise BadCalls(f"--generate {name}: {type(error).__name__}: {error}") from None
    return found if callable(found) else lambda: found


def cycle_generated(name: str) -> Iterator[Call]:
    """Yield what a generator yields, and begin anew when it is through; raises BadCalls."""
    begin = find_generator(name)
    while True:
        count = 0
        for count, value in enumerate(begin(), 1):
            yield read_call(value, f"--generate {name}: the value number {count}")
        if not count:
            raise BadCalls(f"--generate {name} yields nothing")


def cycle_calls(path: str | None, generator: str | None) -> Iterator[Call]:
    """Yield calls without end: from a file, by a generator, or without arguments; raises BadCalls."""
    if generator:
        yield from cycle_generated(generator)
    calls = read_file(Path(path)) if path else [Call()]
    while True:
        yield from calls
