"""`python -m recyclery.governor`, started by PID 1: builds the governor and its services, and runs them.

It may be restarted at any time. It is supervisord's event listener: standard output belongs to that protocol,
the log goes to standard error.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from recyclery.act.cleanup import Sweeper
from recyclery.alerts.monitor import Monitor
from recyclery.config.settings import Settings, read_settings
from recyclery.control.server import control_socket, serve_control
from recyclery.governor.commands import CommandHandlers
from recyclery.governor.executor import Executor, logged_errors
from recyclery.governor.inbox import Inbox
from recyclery.governor.loop import Governor
from recyclery.health.heartbeat import HeartbeatWriter
from recyclery.history.recorder import Recorder
from recyclery.http.status import read_status
from recyclery.observe.observer import ExitWatcher, Observer
from recyclery.observe.processes import Markers
from recyclery.observe.queue_depths import Broker
from recyclery.observe.supervisord import read_events
from recyclery.observe.workers import bind_reports
from recyclery.state.board import Board
from recyclery.state.ledger import Ledger
from recyclery.state.model_store import ModelStore
from recyclery.state.task_stats import TaskTotals
from recyclery_worker.link import governor_socket, now

log = logging.getLogger("recyclery")

# Prefixes as in Celery's log.
LOG_FORMATS = {"text": "[%(asctime)s] %(message)s", "json": "[%(asctime)s: %(levelname)s/governor] %(message)s"}
RESTART_SERVICE_SECONDS = 10.0


def main() -> int:
    """Run the governor in the environment that PID 1 gives it."""
    settings = read_settings(Path(os.environ["RECYCLERY_RUNTIME_DIR"]))
    level = logging.DEBUG if settings.log_level == "debug" else logging.INFO
    logging.basicConfig(stream=sys.stderr, level=level, format=LOG_FORMATS[settings.log_format])
    asyncio.run(govern(settings, os.environ["RECYCLERY_RUN"]))
    return 0


async def govern(settings: Settings, run: str) -> None:
    """Build the governor and run it until it is stopped."""
    woken = asyncio.Event()
    broker = Broker(os.environ.get("RECYCLERY_BROKER_URL", ""))
    models = ModelStore(settings.state_dir / "models.json")
    board = Board(settings, broker, Ledger(settings), models, TaskTotals(since=now()))
    observer = Observer(settings=settings, markers=Markers(run))
    recorder = Recorder(settings)
    inbox = Inbox(settings, broker, recorder.record_report, woken.set)
    exits = ExitWatcher(woken.set)
    heart = HeartbeatWriter(settings.runtime_dir)
    executor = Executor(board, observer, inbox, recorder, woken.set)
    governor = Governor(board, observer, inbox, executor, recorder, Sweeper(), exits, heart, woken)
    try:
        await run_services(governor, Monitor(settings))
    finally:
        recorder.close()
        exits.close()


async def run_services(governor: Governor, monitor: Monitor) -> None:
    """Run the loop, and concurrently signal handlers, reports, commands, events, HTTP and alerts."""
    loop, board = asyncio.get_running_loop(), governor.board
    services: set[asyncio.Task[None]] = set()
    start = partial(start_service, services)
    directory = board.settings.runtime_dir
    loop.add_signal_handler(signal.SIGTERM, governor.stop)
    loop.add_signal_handler(signal.SIGINT, governor.stop)
    reports = bind_reports(governor_socket(directory))
    loop.add_reader(reports, governor.receive, reports)
    loop.add_signal_handler(signal.SIGHUP, lambda: governor.reload(read_settings(directory)))
    loop.add_signal_handler(signal.SIGUSR1, lambda: start(log_status(board)))
    server = await serve_control(control_socket(directory), CommandHandlers(governor).handlers())
    events = start(follow_events(governor))
    start(keep_running("HTTP", partial(serve_http_pages, governor, monitor)))
    start(keep_running("alerts", partial(monitor.watch, board)))
    log.info("watching %s", ", ".join(pool.name for pool in board.settings.pools))
    try:
        await governor.run()
        await monitor.finish()
        if events.done():
            # Raises the exception that ended it.
            events.result()
    finally:
        for task in services:
            task.cancel()
        server.close()
        loop.remove_reader(reports)
        reports.close()
        for path in (governor_socket(directory), control_socket(directory)):
            path.unlink(missing_ok=True)


def start_service(services: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run something as a task, which the services hold until it ends."""
    task = asyncio.create_task(work)
    services.add(task)
    task.add_done_callback(services.discard)
    return task


async def keep_running(what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run a service; after an exception, which is logged, run it again."""
    while True:
        with logged_errors(what):
            await work()
            return
        await asyncio.sleep(RESTART_SERVICE_SECONDS)


async def serve_http_pages(governor: Governor, monitor: Monitor) -> None:
    """Serve HTTP if an address is configured."""
    board = governor.board
    if board.settings.http is not None:
        # Imported lazily: HTTP is off by default and costs memory.
        from recyclery.http.routes import serve_pages  # noqa: PLC0415

        await serve_pages(board, monitor, governor.heart, board.settings.http)


async def follow_events(governor: Governor) -> None:
    """Handle PID 1's process events. Without them the governor exits, for PID 1 to restart it."""
    try:
        async for _ in read_events():
            governor.handle_event()
    except Exception:
        governor.stop()
        raise


async def log_status(board: Board) -> None:
    """Log the status as `recyclery status` prints it."""
    # Imported late: few ask for it.
    from recyclery.control.client import format_status  # noqa: PLC0415

    for line in format_status(msgspec.to_builtins(await read_status(board))).splitlines():
        log.info("%s", line)


if __name__ == "__main__":
    sys.exit(main())
