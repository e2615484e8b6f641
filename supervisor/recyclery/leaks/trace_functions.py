"""Names the function in which a line stands: tracemalloc tells files and lines alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

Span = tuple[int, int, str]


def function_at(file: str, line: int) -> str:
    """Return the name of the innermost function around a line; empty where there is none, or no source."""
    around = [span for span in functions_in(file) if span[0] <= line <= span[1]]
    return max(around)[2] if around else ""


@cache
def functions_in(file: str) -> tuple[Span, ...]:
    """Return a file's functions: first line, last line, name."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ()
    return tuple(spans_of(tree))


def spans_of(tree: ast.AST) -> Iterator[Span]:
    """Yield each function's span."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.end_lineno or node.lineno, node.name
