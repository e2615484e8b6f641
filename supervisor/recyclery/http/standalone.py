"""A report as one HTML file that needs no server and no network, with the live page's styles and chart code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).with_name("page")
# In an order in which each needs only those before it.
SCRIPTS = ("words.js", "tables.js", "chart.js", "memory.js")
# One file has nothing to import from.
MODULE_WORDS = re.compile(r"^import .*\n|^export ", re.MULTILINE)


def read_file(name: str) -> str:
    """Return one file of the page."""
    return (FOLDER / name).read_text(encoding="utf-8")


def fill_in(template: str, values: Mapping[str, str], data: bytes) -> str:
    """Return a report's page: `values` are HTML, `data` is the JSON that its script draws."""
    parts = {
        **values,
        # As text that ends no script.
        "data": data.decode().replace("<", "\\u003c"),
        "styles": read_file("page.css"),
        "scripts": MODULE_WORDS.sub("", "\n".join(map(read_file, SCRIPTS))),
    }
    # In one pass: what is put in may hold such words itself.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)
