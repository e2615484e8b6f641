"""The command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

from recyclery import __version__, demo, leaks
from recyclery.cli import parked_arguments as parked
from recyclery.cli.broken_pipe import end_where_cut_off
from recyclery.tune.arguments import add_arguments as add_tune_arguments

# argparse names it nowhere in public.
Commands: TypeAlias = "argparse._SubParsersAction[CommandParser]"


class CommandParser(argparse.ArgumentParser):
    """Gets its arguments when its command is the one: those made from the settings take a while to import."""

    add_late: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, *args: Any, **more: Any) -> Any:
        """Add the arguments, then parse."""
        if self.add_late is not None:
            self.add_late(self)
        return super().parse_known_args(*args, **more)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code (2 for wrong usage, 1 where nobody reads what it says)."""

    def command() -> int:
        args = build_parser().parse_args(arguments)
        code: int = args.command(args)
        return code

    return end_where_cut_off(command)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; each command's function is the namespace's `command`."""
    parser = CommandParser(
        prog="recyclery", description="A worker supervisor for Celery, made for containers that run browsers."
    )
    parser.add_argument("--version", action="version", version=f"recyclery {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_run(commands)
    add_asking(commands)
    add_changing(commands)
    add_checking(commands)
    parked_parser = commands.add_parser(
        "parked", help="tasks that kept killing their process: what to do with them"
    )
    parked.add_arguments(parked_parser)
    parked_parser.set_defaults(command=parked.main)
    leaks_parser = commands.add_parser("leaks", help="which task leaves how much memory where")
    leaks.add_arguments(leaks_parser)
    leaks_parser.set_defaults(command=leaks.main)
    tune_parser = commands.add_parser("tune", help="run your own tasks at several levels: which one suits")
    add_tune_arguments(tune_parser)
    tune_parser.set_defaults(command=tune_command)
    add_trace(commands)
    demo_parser = commands.add_parser("demo", help="a storm of leaking browser tasks in a container-sized cage")
    demo.add_arguments(demo_parser)
    demo_parser.set_defaults(command=demo.main)
    return parser


def add_run(commands: Commands) -> None:
    """Add `run`."""
    run = commands.add_parser("run", help="supervise the pools: the container's entry point")
    add_app(run)
    which = run.add_mutually_exclusive_group()
    which.add_argument("--single", action="store_true", help="one worker on high,default,low")
    which.add_argument(
        "--pool", action="append", default=[], metavar="NAME", help="only this pool; may be repeated"
    )
    run.add_late = add_run_settings
    run.set_defaults(command=run_command)


def add_run_settings(run: argparse.ArgumentParser) -> None:
    """Add the options of `run` that give a setting."""
    from recyclery.config.sources import with_options  # noqa: PLC0415

    for option, setting in with_options().items():
        if option != "--app":
            run.add_argument(option, metavar=setting.flag.split()[1], help=setting.describe())


def add_asking(commands: Commands) -> None:
    """Add what asks the running supervisor how things are."""
    status = commands.add_parser("status", help="what the supervisor sees now")
    status.add_argument("--json", action="store_true", help="print the whole status as one JSON object")
    status.set_defaults(command=status_command)

    top = commands.add_parser("top", help="the same live in a terminal, with keys to recycle and to reap")
    top.add_argument("--once", action="store_true", help="print one plain frame, as without a terminal")
    top.set_defaults(command=top_command)

    health = commands.add_parser("health", help="exit 0 if all works, 1 with a reason if not; for HEALTHCHECK")
    health.set_defaults(command=health_command)


def add_changing(commands: Commands) -> None:
    """Add what has the running supervisor do something."""
    reap = commands.add_parser("reap", help="kill browsers that no task owns, now")
    reap.add_argument("--strangers", action="store_true", help="also those that no pool started")
    reap.set_defaults(command=reap_command)

    recycle = commands.add_parser("recycle", help="give a pool a new worker; its queues wait for nobody")
    recycle.add_argument("pool", metavar="POOL")
    recycle.set_defaults(command=recycle_command)

    change = commands.add_parser(
        "set",
        help="change settings of the running supervisor",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    change.add_late = add_set_arguments
    change.set_defaults(command=set_command)


def add_set_arguments(change: argparse.ArgumentParser) -> None:
    """Add what `set` takes: the settings that can be changed live."""
    from recyclery.config.live import describe_settings  # noqa: PLC0415
    from recyclery.config.settings import TABLES  # noqa: PLC0415

    change.add_argument("table", metavar="POOL", help=f"a pool's name, or one of {', '.join(TABLES)}")
    change.add_argument("values", metavar="KEY=VALUE", nargs="+", help="values as in recyclery.toml")
    change.epilog = describe_settings()


def add_checking(commands: Commands) -> None:
    """Add what looks at the app and its broker, with or without a supervisor."""
    routes = commands.add_parser(
        "routes", help="each task, its queue, and the pool that serves it; needs no broker"
    )
    routes.add_argument("--single", action="store_true", help="for one worker on high,default,low")
    routes.set_defaults(command=routes_command)

    doctor = commands.add_parser("doctor", help="look at all that a deployment rests on; exit 1 on a failure")
    doctor.add_argument("--single", action="store_true", help="for one worker on high,default,low")
    doctor.set_defaults(command=doctor_command)

    reclaim = commands.add_parser(
        "reclaim", help="give back what dead workers held and nobody has given back; needs no supervisor"
    )
    reclaim.add_argument("--list", action="store_true", help="only say what that is")
    reclaim.set_defaults(command=reclaim_command)
    for parser in (routes, doctor, reclaim):
        add_app(parser)
        parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_trace(commands: Commands) -> None:
    """Add `trace record`."""
    trace = commands.add_parser("trace", help="when tasks come to a queue, for `recyclery tune --trace`")
    actions = trace.add_subparsers(required=True, metavar="ACTION")
    record = actions.add_parser("record", help="write it to standard output; takes no task, reads no body")
    add_app(record)
    record.add_argument("--queue", metavar="NAME", required=True)
    record.add_argument("--seconds", metavar="N", default="600", help="for how long (600)")
    record.set_defaults(command=trace_command)


def add_app(parser: argparse.ArgumentParser) -> None:
    """Add the options by which an app and its settings are found."""
    parser.add_argument(
        "--config", metavar="FILE", help="default: /etc/recyclery/recyclery.toml if there is one"
    )
    parser.add_argument("-A", "--app", help="the Celery app, as celery -A takes it (CELERY_APP)")


def run_command(args: argparse.Namespace) -> int:
    """`recyclery run`."""
    from recyclery.config.sources import read_command_line  # noqa: PLC0415
    from recyclery.pid1.run import run  # noqa: PLC0415

    return run(read_command_line(args))


def status_command(args: argparse.Namespace) -> int:
    """`recyclery status`."""
    from recyclery.cli.status import print_status  # noqa: PLC0415

    return print_status(as_json=args.json)


def top_command(args: argparse.Namespace) -> int:
    """`recyclery top`."""
    from recyclery.top.command import show  # noqa: PLC0415

    return show(once=args.once)


def reap_command(args: argparse.Namespace) -> int:
    """`recyclery reap`."""
    from recyclery.cli.operations import reap_now  # noqa: PLC0415

    return reap_now(strangers=args.strangers)


def recycle_command(args: argparse.Namespace) -> int:
    """`recyclery recycle`."""
    from recyclery.cli.operations import recycle  # noqa: PLC0415

    return recycle(args.pool)


def health_command(_: argparse.Namespace) -> int:
    """`recyclery health`."""
    from recyclery.health import command as health  # noqa: PLC0415

    return health.main()


def routes_command(args: argparse.Namespace) -> int:
    """`recyclery routes`."""
    from recyclery.celery_app.routing import print_routes  # noqa: PLC0415
    from recyclery.config.sources import read_command_line  # noqa: PLC0415

    return print_routes(read_command_line(args), as_json=args.json)


def doctor_command(args: argparse.Namespace) -> int:
    """`recyclery doctor`."""
    from recyclery.config.sources import read_command_line  # noqa: PLC0415
    from recyclery.doctor.command import print_findings  # noqa: PLC0415

    return print_findings(read_command_line(args), as_json=args.json)


def reclaim_command(args: argparse.Namespace) -> int:
    """`recyclery reclaim`."""
    from recyclery.celery_app.reclaim import reclaim_forgotten  # noqa: PLC0415
    from recyclery.config.sources import read_command_line  # noqa: PLC0415

    return reclaim_forgotten(read_command_line(args), only_list=args.list, as_json=args.json)


def tune_command(args: argparse.Namespace) -> int:
    """`recyclery tune`."""
    from recyclery.tune.command import main as tune_main  # noqa: PLC0415

    return tune_main(args)


def trace_command(args: argparse.Namespace) -> int:
    """`recyclery trace record`."""
    from recyclery.cli.record_arrivals import record  # noqa: PLC0415

    return record(args)


def set_command(args: argparse.Namespace) -> int:
    """`recyclery set`."""
    from recyclery.cli.operations import set_values  # noqa: PLC0415

    return set_values(args.table, args.values)


if __name__ == "__main__":
    sys.exit(main())
