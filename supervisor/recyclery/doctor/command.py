"""Checks everything, in an order in which earlier findings explain later ones, and prints the findings."""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from celery import Celery

from recyclery.celery_app.routing import (
    Routing,
    UnusableApp,
    find_routes,
    find_routing_problems,
    import_app,
    wrap_text,
)
from recyclery.config.fields import BadConfiguration
from recyclery.config.settings import Pool, Settings
from recyclery.config.sources import CommandLine, load_deployment, read_command_line
from recyclery.doctor.application import app_findings, read_app
from recyclery.doctor.broker import (
    broker_findings,
    connection_findings,
    lease_findings,
    read_brokers,
    read_leases,
    read_rabbitmq,
    tuning_findings,
)
from recyclery.doctor.container import browser_findings, container_findings, read_browser, read_container_facts
from recyclery.doctor.findings import Finding, Severity, failure, ok, warning
from recyclery.doctor.supervision import read_supervision, supervision_findings
from recyclery_worker.broker.connection import broker_urls
from recyclery_worker.broker.result_backend import find_backend_problem

FINDING_WIDTH = 9


def print_findings(args: argparse.Namespace) -> int:
    """Print each finding as soon as it is known; return 1 where one is a failure."""
    findings = []
    for finding in examine(read_command_line(args)):
        findings.append(finding)
        if not args.json:
            print("\n".join(format_finding(finding)), flush=True)
    failures = sum(finding.level is Severity.FAILURE for finding in findings)
    if args.json:
        document = {"failures": failures, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(document, indent=2))
    else:
        print(f"\n{summarize(findings)}")
    return 1 if failures else 0


def examine(line: CommandLine) -> Iterator[Finding]:
    """Yield all findings; the first failure is the last one where the settings or the app are unusable."""
    try:
        settings, pools = load_deployment(line, os.environ)
    except BadConfiguration as error:
        yield failure("configuration", str(error), "correct the setting that it names")
        return
    yield ok("configuration", f"pools {', '.join(pool.name for pool in settings.pools)}")
    try:
        app = import_app(settings.app)
    except UnusableApp as error:
        yield failure(
            "app",
            f"{settings.app}: {error}",
            "set CELERY_APP to what `celery -A` takes, and PYTHONPATH or the working directory to where it is",
        )
        return
    yield from examine_app(app, settings, pools)


def examine_app(app: Celery, settings: Settings, pools: Sequence[Pool]) -> Iterator[Finding]:
    uses_browser = "recyclery_worker.browser" in sys.modules
    facts = read_app(app)
    yield from app_findings(facts, settings)
    routing = find_routes(app)
    yield from routing_findings(routing, pools)
    url = os.environ.get("RECYCLERY_BROKER_URL") or ";".join(broker_urls(app.connection_for_read()))
    broker = read_rabbitmq(app) if facts.broker_kind == "amqp" else read_brokers(url.split(";"))
    yield from broker_findings(broker)
    yield from connection_findings(broker, pools)
    yield from result_findings(app)
    yield from browser_findings(read_browser(used=uses_browser))
    yield from container_findings(read_container_facts(settings), settings, imports_browser=uses_browser)
    if broker.problem is None:
        queues = tuple(sorted({queue for route in routing.routes for queue in route.queues}))
        supervision = read_supervision(app, url, settings.runtime_dir, queues)
        yield from supervision_findings(supervision, settings, facts.queue_order)
        if facts.broker_kind == "redis":
            yield from lease_findings(read_leases(settings.app))
            yield from tuning_findings(settings.app)


def result_findings(app: Celery) -> Iterator[Finding]:
    """Check that results can be stored."""
    if problem := find_backend_problem(app):
        advice = "start it, or correct result_backend; tasks run without it, and their results are lost"
        yield failure("result backend", problem, advice)
    elif str(app.backend_cls or app.conf.result_backend or "disabled").startswith("disabled"):
        yield ok("result backend", "none: no results are kept")
    else:
        yield ok("result backend", "results can be stored")


def routing_findings(routing: Routing, pools: Sequence[Pool]) -> Iterator[Finding]:
    """Check that every queue has a pool and every pool a queue, over all containers."""
    problems = find_routing_problems(routing, pools)
    for problem in problems:
        yield warning("routes", problem, "`recyclery routes` shows all of them")
    if not problems:
        yield ok("routes", f"{len(routing.routes)} tasks; every queue has a pool, every pool has tasks")


def format_finding(finding: Finding) -> list[str]:
    """Return its lines, of at most 80 columns."""
    is_wrong = finding.level in {Severity.WARNING, Severity.FAILURE}
    label = finding.level.upper() if is_wrong else str(finding.level)
    indent = " " * FINDING_WIDTH
    text = wrap_text(f"{finding.name}: {finding.text}", first=label.ljust(FINDING_WIDTH), rest=indent)
    return [*text, *wrap_text(finding.fix, first=f"{indent}-> ", rest=f"{indent}   ")]


def summarize(findings: Iterable[Finding]) -> str:
    """Return the numbers of failures, warnings and skipped checks in one line."""
    levels = [finding.level for finding in findings]
    kinds = {Severity.FAILURE: "failures", Severity.WARNING: "warnings", Severity.SKIPPED: "not checked"}
    wrong = [f"{kind}: {levels.count(level)}" for level, kind in kinds.items() if level in levels]
    return ", ".join(wrong) or "All is well."
