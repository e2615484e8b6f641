"""The story of one demo: set the stage, let the storm blow, stop, count, tell."""

import argparse
import signal
import sys
import time
from types import FrameType

from recyclery.common.exit_codes import INTERRUPTED
from recyclery_demo.display import Display, Frame, open_display
from recyclery_demo.managers import Manager, find_manager
from recyclery_demo.options import Options, read_options
from recyclery_demo.plan import StormPlan, describe_habit, plan_storm
from recyclery_demo.requirements import DemoError, find_requirements
from recyclery_demo.stage import Stage, limited_memory, set_stage, stop_workers, wait_for_workers
from recyclery_demo.storm import percentile
from recyclery_demo.summary import Summary
from recyclery_demo.watch import Moment, count_processes

LOOK_SECONDS = 0.5
SETTLE_SECONDS = 3.0


def run_command(args: argparse.Namespace) -> int:
    """Run the demo; return 0 for a flawless storm, 1 for any other, 130 after Ctrl-C."""
    options = read_options(args)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        summary = run_storm(find_manager(options.manager), options)
    except DemoError as error:
        print(f"recyclery demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("recyclery demo: interrupted; all is stopped", file=sys.stderr)
        return INTERRUPTED
    if options.json:
        print(summary.to_json(), flush=True)
    else:
        from recyclery_demo.picture import print_summary  # noqa: PLC0415 - rich, which may be missing at the start

        print_summary(summary)
    return INTERRUPTED if summary.ending == "interrupted" else summary.exit_status()


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run_storm(manager: Manager, options: Options) -> Summary:
    """Run one storm from the first process started to the last one gone."""
    requirements = find_requirements()
    plan = plan_storm(options.mix, options.tasks, options.fast_tasks, options.seed)
    with limited_memory(options.limit_bytes, lambda text: print(text, file=sys.stderr)) as cgroup:
        frame = Frame(
            manager=manager.name,
            tasks=len(plan.scrapes),
            habit=describe_habit(options.mix, plan),
            fast_tasks=len(plan.pings),
            limit_bytes=options.limit_bytes,
            memory_kind=cgroup.kind if cgroup else "budget",
        )
        with open_display(frame, json=options.json) as display:
            display.say("Starting Redis, the tax office's site and the workers")
            with set_stage(
                requirements, manager, plan, cgroup=cgroup, limit_bytes=options.limit_bytes, log=options.log
            ) as stage:
                wait_for_workers(stage)
                return blow(stage, plan, display, options)


def blow(stage: Stage, plan: StormPlan, display: Display, options: Options) -> Summary:
    """Send the storm, watch it to its end, stop the workers and count."""
    watch = StormWatch(stage, plan, display)
    try:
        ending = watch.until_over(options.deadline_seconds)
    except KeyboardInterrupt:
        ending = "interrupted"
    return watch.finish(ending, options)


class StormWatch:
    """A storm under way, from its first task to its summary."""

    def __init__(self, stage: Stage, plan: StormPlan, display: Display) -> None:
        self._stage = stage
        self._plan = plan
        self._display = display
        self._started = time.monotonic()
        self._peak_floor_bytes = 0
        self._seconds = 0.0
        self._scraped_seconds = 0.0

    def until_over(self, deadline_seconds: float) -> str:
        """Send the storm and look at it until all is done, time is up, or PID 1 is gone; say which."""
        self._display.say("Scraping")
        self._stage.storm.start()
        if self._stage.manager.name == "recyclery":
            self._stage.poll.start()
        all_scraped = False
        while True:
            moment = self._look()
            self._display.show(moment)
            self._seconds = moment.elapsed_seconds
            self._peak_floor_bytes = max(self._peak_floor_bytes, moment.floor_bytes)
            # The first look that finds all of them settled is the last one that counts.
            if not all_scraped:
                self._scraped_seconds = moment.elapsed_seconds
            all_scraped = moment.done + moment.failed == len(self._plan.scrapes)
            if all_scraped and moment.pinged == len(self._plan.pings):
                return "finished"
            if moment.elapsed_seconds > deadline_seconds:
                return "deadline"
            if self._stage.cage.wait(LOOK_SECONDS) is not None:
                return "ended"

    def _look(self) -> Moment:
        stage = self._stage
        counts = stage.storm.read_counts()
        browsers, defunct = count_processes(stage.cage)
        status = stage.poll.latest
        return Moment(
            elapsed_seconds=time.monotonic() - self._started,
            done=counts.tally.succeeded,
            failed=counts.tally.failed,
            pinged=counts.pinged,
            fast_p95_seconds=percentile(counts.latencies_seconds, 95),
            usage_bytes=stage.meter.usage_bytes(),
            floor_bytes=stage.meter.floor_bytes(),
            oom_kills=stage.meter.oom_kills(),
            browsers=browsers,
            defunct=defunct,
            reaped=status.reaped,
            recycles=status.recycles,
        )

    def finish(self, ending: str, options: Options) -> Summary:
        """Stop everything and count."""
        self._display.say("Stopping the workers")
        browsers, defunct = self._settle(SETTLE_SECONDS if ending == "finished" else 0.0)
        stage = self._stage
        stage.storm.stop()
        stage.poll.stop()
        exit_status = stop_workers(stage)
        processes_left = stage.meter.processes_left()
        counts = stage.storm.read_final_counts()
        status = stage.poll.latest
        self._display.say("Stopped")
        return Summary(
            manager=stage.manager.name,
            mix=options.mix_name,
            memory=stage.meter.kind,
            tasks=len(self._plan.scrapes),
            succeeded=counts.tally.succeeded,
            failed=counts.tally.failed,
            lost=counts.tally.lost,
            queued=counts.tally.queued,
            duplicates=counts.tally.duplicates,
            fast_tasks=len(self._plan.pings),
            fast_succeeded=counts.pinged,
            oom_kills=stage.meter.oom_kills(),
            recycles=dict(status.recycles),
            orphans_reaped=status.reaped,
            leaked_browsers=browsers,
            defunct_left=defunct,
            processes_left=processes_left,
            peak_bytes=stage.meter.peak_bytes(),
            peak_floor_bytes=self._peak_floor_bytes,
            limit_bytes=options.limit_bytes,
            seconds=round(self._seconds, 2),
            scraped_seconds=round(self._scraped_seconds, 2),
            fast_p95_seconds=_round(percentile(counts.latencies_seconds, 95)),
            exit=exit_status,
            ending=ending,
        )

    def _settle(self, timeout_seconds: float) -> tuple[int, int]:
        """Return the browsers and the defunct processes left after a moment to tidy up."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            browsers, defunct = count_processes(self._stage.cage)
            if browsers == defunct == 0 or time.monotonic() >= deadline:
                return browsers, defunct
            time.sleep(0.1)


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
