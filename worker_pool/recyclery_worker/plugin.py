"""Hangs the worker side into Celery: its bootsteps, in a worker that the supervisor started."""

from __future__ import annotations

import sys
from typing import Any

import celery
from celery import signals
from celery.utils.log import get_logger

from recyclery_worker.app_check import find_browser_early
from recyclery_worker.broker.wait import BrokerReturn, BrokerWait
from recyclery_worker.compat import found
from recyclery_worker.control.heartbeat import PulseStep
from recyclery_worker.control.server import LinkServer
from recyclery_worker.control.stats import follow_intake
from recyclery_worker.delivery.defaults import outlive_refusals, set_defaults
from recyclery_worker.delivery.lease import LeaseStep, keep_own_keys, keeper, starts
from recyclery_worker.parking.admission import GateStep, describe_lack
from recyclery_worker.pool.capabilities import follow_by_signals, read_fit
from recyclery_worker.pool.task_stats import follow_lost

logger = get_logger(__name__)

# The settings that the user left to us.
_defaults: set[str] = set()


def install() -> None:
    """Connect to Celery's signals; doing it twice is doing it once."""
    signals.import_modules.connect(on_import_modules, dispatch_uid="recyclery.import_modules")
    signals.worker_init.connect(on_worker_init, dispatch_uid="recyclery.worker_init")


def on_import_modules(sender: Any = None, **_: Any) -> None:
    """Set what an app needs that is to lose nothing, before its tasks take their settings over for good.

    Celery imports our pool first of all; workers with pools of its own import us too late for this.
    """
    if not sender.finalized:
        _defaults.update(set_defaults(sender))


def on_worker_init(sender: Any = None, **_: Any) -> None:
    """Test ourselves against this Celery and its pool, and add our bootsteps.

    The worker reads its bootsteps and options right after this signal (celery/worker/worker.py), and can log
    from `celeryd_after_setup` on.
    """
    if "worker_prefetch_multiplier" in _defaults and not any(
        "--prefetch-multiplier" in word for word in sys.argv
    ):
        # Its command line was read before the app's settings could be changed.
        sender.prefetch_multiplier = sender.app.conf.worker_prefetch_multiplier
    fit = read_fit(sender)
    if fit.retires:
        note = take_over_autoscale(sender)
        follow_lost()
    else:
        note = fit.lack
        follow_by_signals(fit)
    steps: set[type] = sender.app.steps["worker"]
    steps.update({LinkServer, PulseStep, BrokerWait})
    sender.app.steps["consumer"].add(BrokerReturn)
    follow_intake()
    outlive_refusals(sender.app)
    note_keys = keep_own_keys(sender.app, sender.hostname)
    if keeper() is not None:
        steps.add(LeaseStep)
    note_parking = describe_lack(sender.app)
    if not note_parking:
        GateStep.starts = staticmethod(starts)
        steps.add(GateStep)

    def say(**_: Any) -> None:
        logger.debug("of Celery %s there is %s", celery.__version__, ", ".join(found("pool")))
        for line in filter(None, (note, note_keys, note_parking)):
            logger.warning("%s", line)
        # Before any fork: the children inherit what was found.
        try:
            amiss = find_browser_early()
        except RuntimeError as error:
            amiss = str(error)
        if amiss:
            logger.warning("tasks that use browser() will fail: %s", amiss)

    signals.celeryd_after_setup.connect(say, weak=False, dispatch_uid="recyclery.after_setup")


def take_over_autoscale(worker: Any) -> str:
    """Turn `--autoscale` off: Celery's would grow and shrink the pool behind the supervisor's back.

    Returns what to say of it, nothing where it was not asked for.
    """
    autoscale = worker.options.pop("autoscale", None)
    if not autoscale:
        return ""
    most = int(autoscale.partition(",")[0]) if isinstance(autoscale, str) else int(autoscale[0])
    worker.concurrency = most
    return f"--autoscale is off, for the supervisor sets the concurrency: it starts with {most}"
