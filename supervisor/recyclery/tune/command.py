"""`recyclery tune`: the user's own tasks at several levels, and which of them suits."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recyclery.common import exit_codes
from recyclery.config.fields import BadConfiguration
from recyclery.config.settings import Settings
from recyclery.leaks.page import NoPlotly
from recyclery.observe.cgroup import find_memory_cgroup
from recyclery.serve.client import Declined, NoSupervisor, ask_governor
from recyclery.tune.folder import own_folder
from recyclery.tune.loads import BadTrace, measure_loads, read_trace
from recyclery.tune.measure import Bench, EveryTaskFailed, Voice
from recyclery.tune.options import load_pool, read_request, read_wishes, resume_request
from recyclery.tune.progress import Progress
from recyclery.tune.request import Request
from recyclery.tune.run import Run
from recyclery.tune.run_file import BadRunFile, Ended, Recorded, RunFile, mend, read_run_file
from recyclery.tune.sending import CannotSend, Sending, calls_of
from recyclery.tune.shown import compare, show
from recyclery.tune.stage import StageFailed
from recyclery.tune.wishes import Wishes
from recyclery_worker.tuned.space import SPACE, Space

FAILED = 1
INTERRUPTED = 130
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(args: argparse.Namespace) -> int:
    """Tune, go on with a tuning, or compare two."""
    try:
        if args.compare:
            if args.html:
                raise BadConfiguration("--html shows one run: leave it out beside --compare")
            before, after = map(Path, args.compare)
            compare(before, after, as_json=args.json)
        else:
            tune(args)
    except BadConfiguration as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return exit_codes.BAD_CONFIGURATION
    except (BadRunFile, BadTrace, CannotSend, EveryTaskFailed, NoPlotly, StageFailed) as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def tune(args: argparse.Namespace) -> None:
    """Measure what is missing, and show what that tells."""
    if args.resume:
        file = RunFile(Path(args.resume))
        recorded = read_run_file(file.path)
        request = resume_request(args, recorded.request)
        settings = load_pool(request, os.environ)
    else:
        request, settings = read_request(args, os.environ)
        recorded = Recorded(request, (), ())
        file = RunFile(Path(args.out or f"tune-{request.pool}-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"))
        if file.path.exists():
            raise BadRunFile(
                f"{file.path} is there already: go on with it by --resume, or name another with --out"
            )
    wishes = read_wishes(args, request)
    if not recorded.is_whole(request):
        recorded = measure_missing(request, settings, recorded, file, wishes)
    try:
        show(recorded, wishes, as_json=args.json, page=Path(args.html) if args.html else None)
    except OSError as error:
        raise BadRunFile(f"{args.html}: {error.strerror}; the run is in {file.path}, for --resume") from None


def measure_missing(
    request: Request, settings: Settings, recorded: Recorded, file: RunFile, wishes: Wishes
) -> Recorded:
    """Measure what a run does not have yet; return all that it has then."""
    trace = read_trace(Path(request.trace)) if request.trace else None
    progress = Progress()
    if is_supervised(settings.runtime_dir):
        progress.note("a supervisor runs here: its pools use memory and CPU too, which this takes for its own")
    if settings.memory.limit_bytes is None and not has_limit():
        progress.note(
            "nothing limits the memory here, so the whole machine's counts: name a limit with --memory"
        )
    with ending_in_order(progress, file), set_up(request, settings, file, progress) as run:
        if file.path.exists():
            mend(file.path)
        else:
            file.begin(request)
        progress.note(f"the run is kept in {file.path}; seed {request.seed}")
        run.windows += recorded.windows
        run.learned = recorded.learned
        run.measure_all()
        opened = measure_loads(run, wishes, trace, recorded.opened)
        file.add(Ended(request.loads))
    progress.clear()
    return Recorded(request, tuple(run.windows), tuple(opened), run.learned)


def is_supervised(runtime_dir: Path) -> bool:
    """Tell whether a supervisor in service answers there."""
    try:
        ask_governor(runtime_dir, "glance")
    except (NoSupervisor, Declined):
        return False
    return True


def has_limit() -> bool:
    """Tell whether the kernel limits our memory."""
    cgroup = find_memory_cgroup()
    return cgroup is not None and cgroup.limit_bytes is not None


@contextmanager
def ending_in_order(progress: Progress, file: RunFile) -> Iterator[None]:
    """End by an exception on the signals that end a program, so that everything is cleaned up, undisturbed."""

    def end(*_: object) -> None:
        for signum in ENDINGS:
            signal.signal(signum, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {signum: signal.signal(signum, end) for signum in ENDINGS}
    try:
        yield
    except KeyboardInterrupt:
        if file.path.exists():
            progress.note(f"stopped; to go on: recyclery tune --resume {file.path}")
        raise
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def set_up(request: Request, settings: Settings, file: RunFile, progress: Progress) -> Iterator[Run]:
    """Make all that every level is measured with, yield a run, and leave nothing of it."""
    space = Space(secrets.token_hex(6))
    environment = {**os.environ, SPACE: space.name}
    with own_folder() as folder:
        # Where we are killed, the process that sends removes it.
        words = ("--folder", str(folder), *calls_of(request.args, request.generate))
        with Sending(request.app, request.task, words, environment) as sending:
            for name in sending.wait_until_ready():
                progress.note(f"removed what a tuning that was killed had left in Redis ({name})")
            bench = Bench(
                pool=request.pool,
                options=run_options(request),
                environment=os.environ,
                grace_seconds=settings.grace_seconds,
                space=space,
                sending=sending,
                folder=folder,
                least_seconds=request.least_seconds,
                most_seconds=request.most_seconds,
                voice=Voice(progress.go_on, progress.note),
            )
            yield Run(request, bench, file, progress)


def run_options(request: Request) -> tuple[str, ...]:
    """Return the options of `recyclery run` by which it finds the same app and pool."""
    options: tuple[str, ...] = ("--app", request.app)
    if request.config is not None:
        options += ("--config", request.config)
    if request.memory_bytes is not None:
        options += ("--memory-limit", str(request.memory_bytes))
    return options
