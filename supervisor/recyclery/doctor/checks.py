"""Looks at everything, in an order in which what comes first explains what comes later."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence

from celery import Celery
from kombu.utils.url import maybe_sanitize_url

from recyclery.celery_app.routing import (
    Routing,
    UnusableApp,
    find_problems,
    import_app,
    routing_of,
)
from recyclery.config.fields import BadConfiguration
from recyclery.config.settings import Pool, Settings
from recyclery.config.sources import CommandLine, load_deployment
from recyclery.doctor.application import judge_app, look_at_app
from recyclery.doctor.broker import (
    judge_broker,
    judge_leases,
    judge_tunings,
    look_at_broker,
    look_at_leases,
    look_at_tunings,
)
from recyclery.doctor.browsers import judge_browser, look_at_browser
from recyclery.doctor.container import judge_container, look_at_container
from recyclery.doctor.findings import Finding, failure, ok, warning
from recyclery.doctor.supervision import judge_supervision, look_at_supervision


def examine(line: CommandLine, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is found; after a configuration or an app that cannot be used there is nothing more."""
    try:
        settings, pools = load_deployment(line, environment)
    except BadConfiguration as error:
        yield failure("configuration", str(error), "mend what it names")
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
    """Look at all that an importable app brings with it."""
    uses_browser = "recyclery_worker.browser" in sys.modules
    facts = look_at_app(app, imports_browser=uses_browser)
    yield from judge_app(facts, settings)
    routing = routing_of(app)
    yield from judge_routing(routing, pools)
    url, address = broker_of(app)
    broker = look_at_broker(url, address)
    yield from judge_broker(broker)
    yield from judge_browser(look_at_browser(used=uses_browser))
    yield from judge_container(look_at_container(settings), settings, imports_browser=uses_browser)
    if broker.problem is None:
        queues = tuple(sorted({queue for route in routing.routes for queue in route.queues}))
        supervision = look_at_supervision(app, url, settings.runtime_dir, queues)
        yield from judge_supervision(supervision, settings, facts.queue_order)
        yield from judge_leases(look_at_leases(settings.app))
        yield from judge_tunings(look_at_tunings(settings.app))


def judge_routing(routing: Routing, pools: Sequence[Pool]) -> Iterator[Finding]:
    """Say whether every queue has a pool and every pool a queue, over all containers."""
    problems = find_problems(routing, pools)
    for problem in problems:
        yield warning("routes", problem, "`recyclery routes` shows all of them")
    if not problems:
        yield ok("routes", f"{len(routing.routes)} tasks; every queue has a pool, every pool has tasks")


def broker_of(app: Celery) -> tuple[str, str]:
    """Return the broker's URL, and the same without secrets."""
    url = os.environ.get("RECYCLERY_BROKER_URL") or app.connection_for_read().as_uri(include_password=True)
    return url, maybe_sanitize_url(url)
