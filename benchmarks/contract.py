"""contract: not a benchmark; how each of them ends, in a table and one line of JSON."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass

HOLDS = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}


@dataclass(frozen=True)
class Bound:
    """A figure and what it has to be: `relation` is <=, >= or ==."""

    value: float
    relation: str
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the figure keeps the bound."""
        held: bool = HOLDS[self.relation](self.value, self.limit)
        return held

    def document(self) -> dict[str, object]:
        """Return it as the closing line has it."""
        return {"value": self.value, "bound": f"{self.relation} {self.limit:g}", "holds": self.holds}


def close(
    benchmark: str, figures: Mapping[str, object], required: Mapping[str, Bound], goal: Mapping[str, Bound]
) -> int:
    """Print the bounds as a table and all of it as the closing line; return the exit status."""
    print(f"\n{'':10} {'figure':40} {'value':>10}  {'bound':10}")
    for kind, bounds in (("required", required), ("goal", goal)):
        for name, bound in bounds.items():
            verdict = "holds" if bound.holds else "DOES NOT HOLD"
            print(f"{kind:10} {name:40} {bound.value:>10g}  {bound.relation} {bound.limit:<8g} {verdict}")
    document = {
        "benchmark": benchmark,
        "figures": dict(figures),
        "required": {name: bound.document() for name, bound in required.items()},
        "goal": {name: bound.document() for name, bound in goal.items()},
    }
    print(json.dumps(document), flush=True)
    return 0 if all(bound.holds for bound in required.values()) else 1
