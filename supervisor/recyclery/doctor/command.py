"""`recyclery doctor`: what is found, for people or as one document."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterable
from dataclasses import asdict

from recyclery.config.sources import CommandLine
from recyclery.doctor.checks import examine
from recyclery.doctor.findings import Finding, Level

COLUMNS = 80
MARKS = {
    Level.OK: "ok",
    Level.NOTE: "note",
    Level.WARNING: "WARNING",
    Level.FAILURE: "FAILURE",
    Level.SKIPPED: "skipped",
}
INDENT = 9


def print_findings(line: CommandLine, *, as_json: bool) -> int:
    """Print what is found as it is found; return 1 where something is a failure."""
    findings = []
    for finding in examine(line, os.environ):
        findings.append(finding)
        if not as_json:
            print("\n".join(format_finding(finding)), flush=True)
    failures = sum(finding.level is Level.FAILURE for finding in findings)
    if as_json:
        print(
            json.dumps({"failures": failures, "findings": [asdict(finding) for finding in findings]}, indent=2)
        )
    else:
        print(f"\n{summarize(findings)}")
    return 1 if failures else 0


def format_finding(finding: Finding) -> list[str]:
    """Return its lines, of at most 80 columns."""
    first = textwrap.wrap(
        f"{finding.name}: {finding.text}",
        COLUMNS,
        initial_indent=f"{MARKS[finding.level]:{INDENT}}",
        subsequent_indent=" " * INDENT,
        break_on_hyphens=False,
    )
    fix = textwrap.wrap(
        finding.fix,
        COLUMNS,
        initial_indent=f"{' ' * INDENT}-> ",
        subsequent_indent=" " * (INDENT + 3),
        break_on_hyphens=False,
    )
    return [*first, *fix]


def summarize(findings: Iterable[Finding]) -> str:
    """Count what is wrong in one line."""
    levels = [finding.level for finding in findings]
    wrong = {
        "failures": levels.count(Level.FAILURE),
        "warnings": levels.count(Level.WARNING),
        "could not be looked at": levels.count(Level.SKIPPED),
    }
    return ", ".join(f"{what}: {count}" for what, count in wrong.items() if count) or "All is well."
