"""The options of `recyclery demo` and their checked values."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from recyclery.common.units import format_bytes, parse_size
from recyclery_demo.plan import MIXES, Mix

MANAGERS = ("recyclery", "celery")
DEFAULT_TASKS = 150
DEFAULT_FAST_TASKS = 500
# Recyclery is given the time to finish; stock Celery stalls, and nobody wants to watch that for long.
DEFAULT_DEADLINE_SECONDS = {"recyclery": 900.0, "celery": 300.0}
# One Chromium and two Celery workers do not start in less.
SMALLEST_LIMIT_BYTES = 256 << 20


@dataclass(frozen=True)
class Options:
    """One demo, as asked for."""

    manager: str
    tasks: int
    mix_name: str
    mix: Mix
    fast_tasks: int
    seed: int
    limit_bytes: int
    deadline_seconds: float
    json: bool
    log: Path | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the demo's options on a parser."""
    parser.description = (
        "Send a storm of scraping tasks, some of which forget to quit their browser, to a fast and a slow "
        "Celery pool in a memory-limited container of their own, and count what became of every task."
    )
    parser.add_argument(
        "--tasks",
        type=number_from(1),
        default=DEFAULT_TASKS,
        metavar="N",
        help="scraping tasks for the slow pool (default: %(default)s)",
    )
    parser.add_argument(
        "--mix",
        choices=MIXES,
        default="browsers",
        help="what they leave behind: "
        + "; ".join(f"{name}: {mix.text}" for name, mix in MIXES.items()).replace("%", "%%")
        + " (default: %(default)s)",
    )
    parser.add_argument(
        "--leak",
        type=_share,
        metavar="SHARE",
        help="share of them that leave their browser running (default: the mix's, 0.30 in browsers)",
    )
    parser.add_argument(
        "--leave",
        type=_size,
        metavar="SIZE",
        help="memory that a task leaves in its pool child (default: the mix's, 5MiB in browsers)",
    )
    parser.add_argument(
        "--fast-tasks",
        type=number_from(0),
        metavar="N",
        help="light tasks for the fast pool, 5 a second "
        f"(default: {DEFAULT_FAST_TASKS} per {DEFAULT_TASKS} tasks)",
    )
    parser.add_argument(
        "--memory",
        type=parse_limit,
        default="1GiB",
        metavar="SIZE",
        help="memory limit of the container (default: %(default)s)",
    )
    parser.add_argument(
        "--manager",
        choices=MANAGERS,
        default="recyclery",
        help="who runs the workers: recyclery, or stock celery for comparison (default: %(default)s)",
    )
    parser.add_argument(
        "--deadline",
        type=read_seconds,
        metavar="SECONDS",
        help="give up after this long (default: 900; 300 with --manager celery)",
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="which tasks leak (default: %(default)s)"
    )
    parser.add_argument(
        "--log", type=_writable_file, metavar="FILE", help="write the workers' own output to this file"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object on standard output; progress goes to standard error",
    )


def read_options(args: argparse.Namespace) -> Options:
    """Return the options with every default filled in."""
    return Options(
        manager=args.manager,
        tasks=args.tasks,
        mix_name=args.mix,
        mix=_read_mix(args),
        fast_tasks=default_fast_tasks(args.tasks) if args.fast_tasks is None else args.fast_tasks,
        seed=args.seed,
        limit_bytes=args.memory,
        deadline_seconds=args.deadline or DEFAULT_DEADLINE_SECONDS[args.manager],
        json=args.json,
        log=args.log,
    )


def default_fast_tasks(tasks: int) -> int:
    """Return how many light tasks go with so many scraping tasks."""
    return round(DEFAULT_FAST_TASKS * tasks / DEFAULT_TASKS)


def _read_mix(args: argparse.Namespace) -> Mix:
    """Return the mix of that name with what --leak and --leave change in it."""
    stated = {"forget_share": args.leak, "leave_bytes": args.leave}
    return replace(MIXES[args.mix], **{name: value for name, value in stated.items() if value is not None})


def number_from(smallest: int) -> Callable[[str], int]:
    """Return an argparse type for whole numbers of at least `smallest`."""

    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < smallest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {smallest}")
        return int(text)

    return convert


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _share(text: str) -> float:
    share = _number(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return share


def read_seconds(text: str) -> float:
    """Read a number of seconds above 0, for argparse."""
    seconds = _number(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return seconds


def _writable_file(text: str) -> Path:
    path = Path(text).absolute()
    try:
        path.open("a").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be written: {error.strerror}") from None
    return path


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse_limit(text: str) -> int:
    """Read a memory limit that a browser and two workers can live in, for argparse."""
    limit_bytes = _size(text)
    if limit_bytes < SMALLEST_LIMIT_BYTES:
        raise argparse.ArgumentTypeError(
            f"{text} is too little for a browser; the least is {format_bytes(SMALLEST_LIMIT_BYTES)}"
        )
    return limit_bytes
