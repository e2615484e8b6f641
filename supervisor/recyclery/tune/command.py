"""`recyclery tune`: measures the user's own tasks at several levels, and recommends one."""

import argparse
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from recyclery.common.exit_codes import BAD_CONFIGURATION, INTERRUPTED, fail
from recyclery.config.fields import BadConfiguration
from recyclery.config.settings import Settings
from recyclery.control.client import Declined, NoSupervisor, ask_governor
from recyclery.observe.cgroup import find_memory_cgroup
from recyclery.sandbox.cage import CannotCageError
from recyclery.tune.options import load_one_pool, read_objective, read_spec, resume_spec
from recyclery.tune.output import (
    build_document,
    format_loads,
    format_recommendation,
    print_comparison,
    print_json,
)
from recyclery.tune.page import build_tune_page
from recyclery.tune.progress import Progress
from recyclery.tune.recommendation import recommend
from recyclery.tune.run_file import Ended, RecordedRun, RunFile, read_run_file
from recyclery.tune.runner import Tuning
from recyclery.tune.sender import TaskSender
from recyclery.tune.spec import Objective, Spec, TuningFailed, read_trace
from recyclery.tune.testbed import RunContext, temporary_folder
from recyclery_worker.tuning.messages import SPACE_VARIABLE, Space

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(args: argparse.Namespace) -> int:
    """Tune, resume a tuning, or compare two."""
    try:
        if not args.compare:
            tune(args)
        elif args.html:
            raise BadConfiguration("--html shows one run: leave it out with --compare")
        else:
            print_comparison(*map(Path, args.compare), as_json=args.json)
    except BadConfiguration as error:
        return fail(error, BAD_CONFIGURATION)
    except (TuningFailed, CannotCageError) as error:
        return fail(error, 1)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def tune(args: argparse.Namespace) -> None:
    """Measure what is missing, and print what follows from it."""
    if args.resume:
        file = RunFile(Path(args.resume))
        recorded = read_run_file(file.path)
        spec = resume_spec(args, recorded.spec)
        memory = str(spec.memory_bytes) if spec.memory_bytes else None
        settings = load_one_pool(spec.pool, spec.app, spec.config, memory, os.environ)
    else:
        spec, settings = read_spec(args, os.environ)
        recorded = RecordedRun(spec)
        file = RunFile(Path(args.out or f"tune-{spec.pool}-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"))
        if file.path.exists():
            raise TuningFailed(
                f"{file.path} is there already: go on with it by --resume, or name another with --out"
            )
    objective = read_objective(args, spec)
    if not recorded.is_complete(spec):
        recorded = measure_missing(spec, settings, recorded, file, objective)
    learned = recorded.learned if recorded.learned.steps else None
    found = recommend(recorded.windows, objective, learned)
    if args.html:
        try:
            Path(args.html).write_text(build_tune_page(found), encoding="utf-8")
        except OSError as error:
            raise TuningFailed(
                f"{args.html}: {error.strerror}; the run is in {file.path}, for --resume"
            ) from None
    if args.json:
        print_json(build_document(found) | {"request": recorded.spec, "loads": recorded.opened})
    else:
        print("\n".join([format_recommendation(found), *format_loads(recorded.opened)]))


def measure_missing(
    spec: Spec, settings: Settings, recorded: RecordedRun, file: RunFile, objective: Objective
) -> RecordedRun:
    """Measure what a run does not have yet; return all that it has then."""
    trace = read_trace(Path(spec.trace)) if spec.trace else None
    progress = Progress()
    with suppress(NoSupervisor, Declined):
        ask_governor(settings.runtime_dir, "glance")
        progress.note("a supervisor runs here: the memory and CPU that its pools use are measured too")
    cgroup = find_memory_cgroup()
    if settings.memory.limit_bytes is None and (cgroup is None or cgroup.limit_bytes is None):
        progress.note(
            "nothing limits the memory here, so the whole machine's counts: name a limit with --memory"
        )
    with stop_by_exception(progress, file), run_context(spec, settings, progress) as context:
        if file.path.exists():
            file.repair()
        else:
            file.begin(spec)
        progress.note(f"the run is kept in {file.path}; seed {spec.seed}")
        tuning = Tuning(context, file, list(recorded.windows), recorded.learned)
        tuning.measure_all()
        opened = tuning.measure_loads(objective, trace, recorded.opened)
        file.add(Ended(spec.loads))
    progress.clear()
    return RecordedRun(spec, tuple(tuning.windows), tuple(opened), tuning.learned)


@contextmanager
def stop_by_exception(progress: Progress, file: RunFile) -> Iterator[None]:
    """Turn the signals that end a program into an exception, so that everything is cleaned up undisturbed."""

    def stop(*_: object) -> None:
        for signum in STOP_SIGNALS:
            signal.signal(signum, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {signum: signal.signal(signum, stop) for signum in STOP_SIGNALS}
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
def run_context(spec: Spec, settings: Settings, progress: Progress) -> Iterator[RunContext]:
    """Start what all levels are measured with, and remove all of it afterwards."""
    space = Space(secrets.token_hex(6))
    with temporary_folder() as folder:
        # The sender removes the folder if this process is killed.
        environment = {**os.environ, SPACE_VARIABLE: space.name}
        with closing(TaskSender(spec, environment, "--folder", str(folder))) as sender:
            for name in sender.wait_until_ready():
                progress.note(f"removed what a tuning that was killed had left in Redis ({name})")
            yield RunContext(spec, settings.grace_seconds, space, sender, folder, progress)
