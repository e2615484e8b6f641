"""The command line. A command's own modules are imported when it runs: most commands need few of them."""

import argparse
import os
import pkgutil
import select
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, TextIO, TypeAlias

from recyclery import __version__, leaks, tune

# As Python itself ends on a broken pipe.
BROKEN_PIPE = 1
# argparse has no public name for it.
Subparsers: TypeAlias = "argparse._SubParsersAction[LateParser]"


class LateParser(argparse.ArgumentParser):
    """Adds its arguments once its command was chosen: those made from the settings take a while to import."""

    add_late: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, *args: Any, **more: Any) -> Any:
        if self.add_late is not None:
            self.add_late(self)
        return super().parse_known_args(*args, **more)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code: 2 for wrong usage, BROKEN_PIPE where its output's reader is gone.

    Ends quietly in that case, as in `recyclery leaks | head -1`.
    """
    try:
        try:
            args = build_parser().parse_args(arguments)
            code: int = args.command(args)
            return code
        finally:
            # Buffered output has to fail here, where the error can be caught.
            sys.stdout.flush()
    except BrokenPipeError:
        broken = [stream for stream in (sys.stdout, sys.stderr) if is_broken(stream)]
        if not broken:
            raise
        for stream in broken:
            # Python flushes them once more as it ends (its docs: "Note on SIGPIPE").
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        return BROKEN_PIPE


def is_broken(stream: TextIO) -> bool:
    """Return whether a stream is a pipe, or a socket, that nobody reads any more."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; each command's function is the namespace's `command`."""
    parser = LateParser(
        prog="recyclery", description="A worker supervisor for Celery, made for containers that run browsers."
    )
    parser.add_argument("--version", action="version", version=f"recyclery {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_run(commands)
    add_operations(commands)
    add_checks(commands)
    add_parked(commands)
    add_measurements(commands)
    # `demo` is in a clone of the repository and in no wheel.
    if find_spec("recyclery_demo") is not None:
        import recyclery_demo as demo  # noqa: PLC0415

        storm = "a storm of leaking browser tasks in a sandbox"
        demo.add_arguments(add_command(commands, "demo", demo.main, storm))
    return parser


def add_command(
    commands: Subparsers, name: str, run: str | Callable[[argparse.Namespace], int], text: str
) -> LateParser:
    """Add a command that calls `run`, which a `module:function` names where that is imported late."""

    def import_and_run(args: argparse.Namespace) -> int:
        function: Callable[[argparse.Namespace], int] = pkgutil.resolve_name(str(run))
        return function(args)

    parser = commands.add_parser(name, help=text)
    parser.set_defaults(command=import_and_run if isinstance(run, str) else run)
    return parser


def add_run(commands: Subparsers) -> None:
    run = add_command(
        commands, "run", "recyclery.pid1.run:run", "supervise the pools: the container's entry point"
    )
    add_app(run)
    which = run.add_mutually_exclusive_group()
    which.add_argument("--single", action="store_true", help="one worker on high,default,low")
    which.add_argument(
        "--pool", action="append", default=[], metavar="NAME", help="only this pool; may be repeated"
    )
    run.add_late = add_run_settings


def add_run_settings(run: argparse.ArgumentParser) -> None:
    from recyclery.config.sources import with_options  # noqa: PLC0415

    for option, setting in with_options().items():
        if option != "--app":
            run.add_argument(option, metavar=setting.flag.split()[1], help=setting.describe())


def add_operations(commands: Subparsers) -> None:
    """Add the commands that ask the running supervisor for its state, or to do something."""
    add = partial(add_command, commands)
    status = add("status", "recyclery.control.client:print_status", "the memory, browsers and pools now")
    status.add_argument("--json", action="store_true", help="print the whole status as one JSON object")
    top = add("top", "recyclery.top.live:show_top", "live view with keys to recycle and reap")
    top.add_argument("--once", action="store_true", help="print one plain frame, as without a terminal")
    add("health", check_health, "exit 0 if all works, 1 with a reason if not; for HEALTHCHECK")
    reap = add("reap", "recyclery.control.client:reap", "kill browsers that no task owns, now")
    reap.add_argument("--strangers", action="store_true", help="also those that no pool started")
    recycle = add(
        "recycle", "recyclery.control.client:recycle", "replace a pool's worker while its queues are served"
    )
    recycle.add_argument("pool", metavar="POOL")
    change = add("set", "recyclery.control.client:set_values", "change settings of the running supervisor")
    change.add_late = add_set_arguments


def add_set_arguments(change: argparse.ArgumentParser) -> None:
    """Add the arguments of `set`: the settings that can be changed live."""
    from recyclery.config.settings import TABLES, describe_settings  # noqa: PLC0415

    change.add_argument("table", metavar="POOL", help=f"a pool's name, or one of {', '.join(TABLES)}")
    change.add_argument("values", metavar="KEY=VALUE", nargs="+", help="values as in recyclery.toml")
    change.formatter_class, change.epilog = argparse.RawDescriptionHelpFormatter, describe_settings()


def add_checks(commands: Subparsers) -> None:
    """Add the commands that examine the app and its broker, with or without a supervisor."""
    add = partial(add_command, commands)
    routes = add(
        "routes",
        "recyclery.celery_app.routing:print_routes",
        "each task, its queue, and the pool that serves it; needs no broker",
    )
    doctor = add(
        "doctor",
        "recyclery.doctor.command:print_findings",
        "check everything a deployment rests on; exit 1 on a failure",
    )
    for parser in (routes, doctor):
        parser.add_argument("--single", action="store_true", help="for one worker on high,default,low")
    reclaim = add(
        "reclaim",
        "recyclery.celery_app.reclaim:reclaim_command",
        "put the unacknowledged tasks of dead workers back to their queues; needs no supervisor",
    )
    reclaim.add_argument("--list", action="store_true", help="only list them")
    for parser in (routes, doctor, reclaim):
        add_app(parser)
        add_json(parser)


def add_parked(commands: Subparsers) -> None:
    parked = commands.add_parser("parked", help="tasks that kept killing their process: list, retry or drop")
    actions = parked.add_subparsers(required=True, metavar="ACTION", dest="action")
    for name, text in (
        ("list", "the tasks that are parked"),
        ("show", "one of them, and how its runs ended"),
        ("retry", "put tasks back to their queues and forget their deaths"),
        ("drop", "delete tasks, and fail whatever waits for their results"),
    ):
        action = add_command(actions, name, "recyclery.cli.parked:run_action", text)
        if name == "show":
            action.add_argument("ids", metavar="ID", nargs=1, help="the task's id")
        if name in {"retry", "drop"}:
            which = action.add_mutually_exclusive_group(required=True)
            which.add_argument("ids", metavar="ID", nargs="*", default=[], help="the tasks' ids")
            which.add_argument("--all", action="store_true", help="all that are parked")
        add_app(action)
        add_json(action)


def add_measurements(commands: Subparsers) -> None:
    """Add `leaks` and `tune`, whose arguments are declared next to what they do, and `trace record`."""
    leaks.add_arguments(add_command(commands, "leaks", leaks.main, "which task leaves how much memory where"))
    tune.add_arguments(
        add_command(
            commands,
            "tune",
            "recyclery.tune.command:main",
            "measure your own tasks at several concurrencies and recommend one",
        )
    )
    trace = commands.add_parser("trace", help="when tasks arrive at a queue, for `recyclery tune --trace`")
    actions = trace.add_subparsers(required=True, metavar="ACTION")
    record = add_command(
        actions,
        "record",
        "recyclery.cli.record_arrivals:record_arrivals",
        "write it to standard output; takes no task, reads no body",
    )
    add_app(record)
    record.add_argument("--queue", metavar="NAME", required=True)
    record.add_argument("--seconds", metavar="N", default="600", help="for how long (600)")


def add_app(parser: argparse.ArgumentParser) -> None:
    """Add the options by which an app and its settings are found."""
    parser.add_argument(
        "--config", metavar="FILE", help="default: /etc/recyclery/recyclery.toml if there is one"
    )
    parser.add_argument("-A", "--app", help="the Celery app, as celery -A takes it (CELERY_APP)")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def check_health(_: argparse.Namespace) -> int:
    from recyclery.health import heartbeat  # noqa: PLC0415

    return heartbeat.main()


if __name__ == "__main__":
    sys.exit(main())
