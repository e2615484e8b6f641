"""Adds our bootsteps and signal handlers to a Celery worker that the supervisor started."""

import sys
from typing import Any

import celery
from celery import signals
from celery.utils.log import get_logger

from recyclery_worker.broker.connection import broker_kind
from recyclery_worker.broker.wait import BrokerReturn, BrokerWait
from recyclery_worker.compat import found, is_set
from recyclery_worker.control.server import LinkServer
from recyclery_worker.delivery import lease
from recyclery_worker.parking.admission import AdmissionStep, why_not_parked
from recyclery_worker.pool.capabilities import connect_signals, read_capabilities
from recyclery_worker.pool.task_stats import TASK_STATS

logger = get_logger(__name__)

# Settings that protect tasks and workers from the death of others; those that the user has set stay.
# With these a task is acknowledged when it is done, and given back when its process dies before that. A task
# that must not run twice has acks_late=False.
SAFE = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    # A worker that holds more messages than it runs keeps them from others, and has more to give back.
    "worker_prefetch_multiplier": 1,
}
_defaults: set[str] = set()  # The settings that the user left to us


def install() -> None:
    """Connect to Celery's signals; calling it twice changes nothing."""
    signals.import_modules.connect(on_import_modules, dispatch_uid="recyclery.import_modules")
    signals.worker_init.connect(on_worker_init, dispatch_uid="recyclery.worker_init")


def on_import_modules(sender: Any = None, **_: Any) -> None:
    """Apply delivery-safe defaults before the tasks copy the app's settings."""
    # Celery imports our pool first of all; a worker with a built-in pool would import us too late for this.
    if not sender.finalized:
        _defaults.update(set_defaults(sender))


def on_worker_init(sender: Any = None, **_: Any) -> None:
    """Check what this Celery and its pool can do, and add our bootsteps."""
    # The worker reads its bootsteps and options right after this signal (celery/worker/worker.py), and can log
    # from `celeryd_after_setup` on.
    if "worker_prefetch_multiplier" in _defaults and "--prefetch-multiplier" not in " ".join(sys.argv):
        # The command line was parsed before the app's settings could be changed.
        sender.prefetch_multiplier = sender.app.conf.worker_prefetch_multiplier
    capabilities = read_capabilities(sender)
    if capabilities.retires:
        warnings = [disable_autoscale(sender)]
        signals.task_failure.connect(TASK_STATS.record_lost, dispatch_uid="recyclery.task_failure")
    else:
        warnings = [capabilities.lack]
        connect_signals(capabilities)
    steps: set[type] = sender.app.steps["worker"]
    steps.update({LinkServer, BrokerWait})
    sender.app.steps["consumer"].add(BrokerReturn)
    for signal in (signals.task_received, signals.task_unknown, signals.task_rejected, signals.task_revoked):
        signal.connect(TASK_STATS.record_received, dispatch_uid="recyclery.received")
    survive_refusals(sender.app)
    warnings.append(lease.set_up(sender.app, sender.hostname))
    if lease.lease() is not None:
        steps.add(lease.LeaseStep)
    warnings.append(why_not_parked(sender.app))
    if not warnings[-1]:
        AdmissionStep.lease = staticmethod(lease.lease)
        steps.add(AdmissionStep)

    def log_start(**_: Any) -> None:
        # Here, as `python -m` warns of a program that its own package has imported.
        from recyclery_worker.app_check import check_browser  # noqa: PLC0415

        logger.debug("Celery %s has %s", celery.__version__, ", ".join(found("pool")))
        for warning in filter(None, warnings):
            logger.warning("%s", warning)
        # Before any fork, so that the children inherit what was found.
        try:
            problem = check_browser()
        except RuntimeError as error:
            problem = str(error)
        if problem:
            logger.warning("tasks that use browser() will fail: %s", problem)

    signals.celeryd_after_setup.connect(log_start, weak=False, dispatch_uid="recyclery.after_setup")


def set_defaults(app: Any) -> list[str]:
    """Set on an app what its user has not set; return the names of those settings."""
    # An app's configuration is loaded when it is first read; until then the user's part cannot be told apart.
    app.conf.get("task_acks_late")
    missing = [name for name in SAFE if not is_set(app.conf, name)]
    for name in missing:
        app.conf[name] = SAFE[name]
    return missing


def survive_refusals(app: Any) -> None:
    """Have Celery reconnect when Redis refuses a command, unless the user has set otherwise."""
    # By default that ends the worker: a failover that makes the old master a replica would end all workers.
    if broker_kind(app.connection_for_read()) == "redis" and not is_set(app.conf, "broker_channel_error_retry"):
        app.conf.broker_channel_error_retry = True


def disable_autoscale(worker: Any) -> str:
    """Turn `--autoscale` off, as Celery would change what the supervisor sets; return what to log."""
    if not (autoscale := worker.options.pop("autoscale", None)):
        return ""
    most = int(autoscale.partition(",")[0]) if isinstance(autoscale, str) else int(autoscale[0])
    worker.concurrency = most
    return f"--autoscale is off, for the supervisor sets the concurrency: it starts with {most}"
