"""A report as one HTML file that needs no server and no network, with the live page's styles and chart code."""

import re
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).with_name("page")
# Each script needs only those before it.
SCRIPTS = ("words.js", "tables.js", "chart.js", "memory.js")
# Removed, as all scripts stand in one file.
MODULE_WORDS = re.compile(r"^import .*\n|^export ", re.MULTILINE)


def read_page_file(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def fill_in(template: str, values: Mapping[str, str], data: bytes) -> str:
    """Return a report's HTML: `values` replace the template's placeholders, `data` is JSON for its script."""
    parts = {
        **values,
        # Escaped, so that no text can end the script element.
        "data": data.decode().replace("<", "\\u003c"),
        "styles": read_page_file("page.css"),
        "scripts": MODULE_WORDS.sub("", "\n".join(map(read_page_file, SCRIPTS))),
    }
    # In one pass: a value may contain a placeholder itself.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)
