"""Adds our bootsteps and signal handlers to a Celery worker that the supervisor started."""

import atexit
import logging
import os
import signal
from pathlib import Path
from typing import Any

import celery
from celery import platforms, signals
from celery.apps import worker as worker_program
from celery.utils.log import get_logger

from recyclery_worker.app_check import check_browser
from recyclery_worker.broker.connection import broker_kind
from recyclery_worker.broker.pool import share_pools
from recyclery_worker.broker.result_backend import explain_error, warn_of_backend
from recyclery_worker.broker.wait import BrokerReturn, BrokerWait
from recyclery_worker.compat import found, is_set, missing
from recyclery_worker.control.remembered import RecallStep
from recyclery_worker.control.server import LinkServer
from recyclery_worker.delivery import lease
from recyclery_worker.delivery.cut_off import watch_tasks
from recyclery_worker.delivery.defaults import REQUEUE, list_early_tasks, set_default, settle_tasks
from recyclery_worker.delivery.rabbitmq import CountDeaths
from recyclery_worker.link import read_variable, ready_file
from recyclery_worker.parking.admission import AdmissionStep, why_not_parked
from recyclery_worker.parking.poison import guard_worker
from recyclery_worker.pool.capabilities import connect_signals, read_capabilities
from recyclery_worker.pool.task_stats import TASK_STATS

logger = get_logger(__name__)
NAMED_TASKS = 10  # In one line


def install() -> None:
    """Connect to Celery's signals; calling it twice changes nothing."""
    signals.worker_init.connect(on_worker_init, dispatch_uid="recyclery.worker_init")


def on_worker_init(sender: Any = None, **_: Any) -> None:
    """Check what this Celery and its pool can do, and add our bootsteps."""
    # The worker reads its bootsteps and options right after this signal (celery/worker/worker.py), and can log
    # from `celeryd_after_setup` on.
    capabilities = read_capabilities(sender)
    if capabilities.retires:
        warnings = [disable_autoscale(sender)]
        signals.task_failure.connect(TASK_STATS.record_lost, dispatch_uid="recyclery.task_failure")
    else:
        warnings = [capabilities.lack]
        connect_signals(capabilities)
    steps: set[type] = sender.app.steps["worker"]
    steps.update({LinkServer, BrokerWait, RecallStep})
    warnings.append(guard_worker(sender.app))
    sender.app.steps["consumer"].add(BrokerReturn)
    for event in (signals.task_received, signals.task_unknown, signals.task_rejected, signals.task_revoked):
        event.connect(TASK_STATS.record_received, dispatch_uid="recyclery.received")
    signals.worker_ready.connect(record_ready, dispatch_uid="recyclery.ready")
    signals.worker_shutting_down.connect(stay_down, dispatch_uid="recyclery.stay_down")
    prepare_connections(sender.app)
    kind = broker_kind(sender.app.connection_for_write())
    if kind != "redis":
        # `CountDeaths` sets it where deaths can be counted.
        set_default(sender.app, REQUEUE, False)
    settle_tasks(sender.app)
    prepare_beat(sender.app)
    warnings.append(lease.set_up(sender.app, sender.hostname))
    if not missing("lease"):
        watch_tasks(sender)
    if lease.lease() is not None:
        steps.add(lease.LeaseStep)
    warnings.append(why_not_parked(sender.app, kind))
    if not warnings[-1]:
        AdmissionStep.lease = staticmethod(lease.lease)
        steps.add(AdmissionStep if kind == "redis" else CountDeaths)

    def after_setup(**_: Any) -> None:
        # The app's own handlers may have changed its settings.
        settle_tasks(sender.app)
        logger.debug("Celery %s has %s", celery.__version__, ", ".join(found("pool")))
        for warning in filter(None, warnings):
            logger.warning("%s", warning)
        log_early_tasks(sender.app)
        if not sender.quiet:  # Else Celery does not make its result backend before it has forked.
            log_backend(sender.app)
        log_missing()

    signals.celeryd_after_setup.connect(after_setup, weak=False, dispatch_uid="recyclery.after_setup")


def log_early_tasks(app: Any) -> None:
    """Name the tasks that are lost with their process: in a warning, where nobody has said so."""
    if early := list_early_tasks(app):
        # Else the app was configured before our defaults were set.
        is_meant = app.conf.task_acks_late or is_set(app.conf, "task_acks_late")
        names = ", ".join(early[:NAMED_TASKS]) + (", …" if len(early) > NAMED_TASKS else "")
        text = "acknowledged as they begin, so lost with their process (%d): %s"
        logger.log(logging.INFO if is_meant else logging.WARNING, text, len(early), names)


def log_backend(app: Any) -> None:
    """Log why an app's result backend cannot be made: Celery makes it right after this signal, and keeps it."""
    try:
        _ = app.backend
    except Exception as error:  # what the app's own code raises
        # Celery ends a worker for that, with a traceback that may not show why.
        logger.error("this worker's result backend cannot be used: %s", explain_error(app, error))


def log_missing() -> None:
    """Log what tasks need and is not there; before any fork, so that the children inherit what was found."""
    try:
        problem = check_browser()
    except RuntimeError as error:
        problem = str(error)
    if problem:
        logger.warning("tasks that use browser() will fail: %s", problem)


def prepare_connections(app: Any) -> None:
    """Take as few connections as can be, outlast Redis's refusals, and check the result backend."""
    survive_refusals(app)
    if not missing("connections"):
        share_pools()
    # When the children have been forked: none inherits what is opened for it.
    signals.worker_ready.connect(
        lambda **_: warn_of_backend(app), weak=False, dispatch_uid="recyclery.result_backend"
    )


def prepare_beat(app: Any) -> None:
    """Have a beat inside this worker (-B) end with it, and forget no tick that it has sent."""
    main_pid = os.getpid()
    system: Any = platforms

    def end_with_worker(**_: Any) -> None:
        # By itself it would outlive a worker that is killed, beside the beat of the next one.
        system.set_pdeathsig("SIGKILL")
        if os.getppid() != main_pid:
            raise SystemExit("its worker is gone")

    signals.beat_embedded_init.connect(end_with_worker, weak=False, dispatch_uid="recyclery.beat")
    if not is_set(app.conf, "beat_sync_every"):
        # By default every three minutes: the next beat would send what this one has sent since.
        app.conf.beat_sync_every = 1


def record_ready(**_: Any) -> None:
    """Write for PID 1 that this worker takes tasks, with its lease: its end may be a task's, or cut one off."""
    path = ready_file(Path(read_variable("RECYCLERY_RUNTIME_DIR")), read_variable("RECYCLERY_SLOT"))
    try:
        held = lease.lease()
        path.write_text(f"{os.getpid()} {held.generation.id if held else ''}", encoding="ascii")
    except OSError as error:
        logger.warning("PID 1 is not told that this worker takes tasks: %s: %s", path, error.strerror)


def stay_down(**_: Any) -> None:
    """Have a HUP, before or after a signal that ends this worker, not start it again at its exit."""
    # On a terminal Celery leaves HUP alone.
    if callable(signal.getsignal(signal.SIGHUP)):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if (restart := getattr(worker_program, "_reload_current_worker", None)) is not None:
        atexit.unregister(restart)


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
