"""The product's source text, read without importing it: which words it holds, wherever they stand."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "supervisor" / "recyclery", ROOT / "worker_pool" / "recyclery_worker")


@cache
def trees() -> tuple[ast.Module, ...]:
    """Return every module of both packages, parsed; the demo is none of the product's."""
    paths = [path for package in PACKAGES for path in sorted(package.rglob("*.py"))]
    return tuple(ast.parse(path.read_text(encoding="utf-8")) for path in paths if "demo" not in path.parts)


def strings() -> Iterator[str]:
    """Yield every text in the code but docstrings, with `{}` for each part of an f-string that is filled in."""
    for tree in trees():
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
                )
            elif isinstance(node, ast.Constant) and id(node) not in docstrings:
                if isinstance(node.value, str):
                    yield node.value
                elif isinstance(node.value, bytes):
                    yield node.value.decode(errors="replace")
