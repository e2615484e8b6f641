"""/metrics, which alert rules and dashboards query. tests/deploy/test_alert_rules.py checks our own ones."""

import re
from collections.abc import Iterator

from contracts import product
from contracts.frozen import assert_frozen

TYPE = re.compile(r"# TYPE (\w+) (\w+)")
LABEL = re.compile(r'(\w+)="([^"]*)"')
# Labels with values that users choose.
FREE = {"pool", "queue", "version"}


def describe(text: str) -> Iterator[str]:
    """Yield the type, name and labels of each metric, then the values of each label with fixed values."""
    families = [(TYPE.match(block), block) for block in re.split(r"^# HELP .*\n", text, flags=re.M)]
    for found, block in families:
        if found is not None:
            labels = dict.fromkeys(name for name, _ in LABEL.findall(block))
            yield f"{found[2]} {found[1]}{'{' + ','.join(labels) + '}' if labels else ''}"
    for found, block in families:
        if found is not None:
            yield from (
                f"{found[1]} {name}={value}" for name, value in LABEL.findall(block) if name not in FREE
            )


def test_the_metrics_have_the_frozen_names_types_labels_and_label_values() -> None:
    assert_frozen("metrics", describe(product.metrics_text()))
