"""The string literals in the source of both packages, read without importing them."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "supervisor" / "recyclery", ROOT / "worker_pool" / "recyclery_worker")


@cache
def strings() -> frozenset[str]:
    """Return every string literal except docstrings, with `{}` for the fields of f-strings.

    The demo is left out.
    """
    paths = [path for package in PACKAGES for path in package.rglob("*.py") if "demo" not in path.parts]
    return frozenset(text for path in paths for text in strings_in(ast.parse(path.read_text(encoding="utf-8"))))


def strings_in(tree: ast.Module) -> Iterator[str]:
    """Yield the string literals of a module."""
    left: list[ast.AST] = [tree]
    while left:
        node = left.pop()
        # Skip docstrings and the parts of f-strings.
        is_whole = not isinstance(node, ast.Expr | ast.JoinedStr)
        left += (
            child for child in ast.iter_child_nodes(node) if is_whole or not isinstance(child, ast.Constant)
        )
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Constant) and isinstance(node.value, bytes):
            yield node.value.decode(errors="replace")
