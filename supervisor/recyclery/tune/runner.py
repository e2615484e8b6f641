"""Measures levels: starts a supervisor on the tuning's own queue, gives it tasks, and samples what they do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from recyclery.decide.memory_model import PoolModel, TaskRun, learn, learn_idle
from recyclery.history.reader import StoredRun
from recyclery.tune.plan import AROUND_SECONDS, PlannedWindow, expect_seconds, list_ahead, plan_next, why_skip
from recyclery.tune.recommendation import recommend
from recyclery.tune.run_file import Closed, Opened, RunFile
from recyclery.tune.spec import Level, Objective, TuningFailed, draw_arrivals, parse_rate, stretch_trace
from recyclery.tune.testbed import RunContext, running_testbed
from recyclery.tune.window import (
    FEWEST_TASKS,
    OpenLoopWindow,
    TaskEvents,
    Window,
    WindowSpan,
    WindowState,
    least_tasks,
    skip_window,
    why_it_does_not_fit,
)
from recyclery_worker.link import now
from recyclery_worker.tuning.messages import Arrive, Fill, Rest

# How long after the last arrival of an open loop its tasks may still end.
TAIL_SECONDS = 60.0
# Tasks that show how long they wait under a load; fewer where they would take longer than the longest window.
LOAD_TASKS = 200


def measure_window(context: RunContext, step: PlannedWindow) -> tuple[Window, list[StoredRun]]:
    """Measure a level while tasks always wait; return also the history's runs. Raises TuningFailed."""
    with running_testbed(context, step.level) as testbed:
        began = now()
        context.sender.ask(Fill(testbed.events_path, 2 * step.level.concurrency + 2))
        state = WindowState()
        while state.span is None and not state.aborted:
            context.progress.update(f"{state.done} of {least_tasks(step.level)} tasks")
            testbed.step()
            check_failures(testbed.seen.events)
            state = testbed.seen.state(context.spec, began, now())
        testbed.read_cpu()
        sent = context.sender.ask(Rest()).sent_by_tasks
        span = state.span or WindowSpan(began, now())
        if state.aborted:
            # There is no memory for its tasks to be waited for.
            testbed.kill()
        else:
            testbed.stop()
        runs = testbed.runs()
    if sent:
        context.progress.note(f"the tasks themselves sent {sent} messages: set aside, and removed")
    return testbed.seen.window(step.repeat, span, child_peaks(runs), state.aborted), runs


def check_failures(events: TaskEvents) -> None:
    """Raise TuningFailed if the first tasks failed, and none succeeded."""
    errors = events.count_errors()
    if len(events.ends) >= FEWEST_TASKS and errors.total() == len(events.ends):
        ((most, _),) = errors.most_common(1)
        raise TuningFailed(
            f"the first {len(events.ends)} tasks all failed, most of them with {most}: try one by hand "
            "with the same arguments"
        )


def measure_load(context: RunContext, level: Level, load: str, times: list[float]) -> OpenLoopWindow:
    """Measure a level while tasks come at `times`, in seconds. Raises TuningFailed."""
    with running_testbed(context, level) as testbed:
        begin = now() + 1.0
        due = [begin + each for each in times]
        events, end = testbed.seen.events, due[-1]
        context.sender.ask(Arrive(testbed.events_path, due))
        stopped = ""
        while not stopped and len(events.ends) < len(due) and now() < end + TAIL_SECONDS:
            testbed.step()
            stopped = why_it_does_not_fit([testbed.seen.base, *testbed.seen.samples])
            came = sum(each <= now() for each in due)
            context.progress.update(f"{load}: {came} of {len(due)} came, {len(events.ends)} ended")
        testbed.read_cpu()
        backlog = [events.count_backlog(at) for at in ((begin + end) / 2, end)]
        context.sender.ask(Rest())
        testbed.stop()
        peaks = child_peaks(testbed.runs())
    window = testbed.seen.window(0, WindowSpan(begin, max(end, now())), peaks, stopped)
    # A single arrival takes no time.
    seconds = (end - begin) or context.spec.least_seconds
    return OpenLoopWindow(
        load=load,
        offered_per_second=len(due) / seconds,
        backlog_middle=backlog[0],
        backlog_end=backlog[1],
        unfinished=len(due) - len(events.ends),
        window=replace(window, seconds=seconds),
    )


def child_peaks(runs: Iterable[StoredRun]) -> tuple[int, ...]:
    """Return for each child that ran tasks the most that its process tree held."""
    peaks: dict[int, int] = {}
    for run in runs:
        held = max(parts.total for parts in (run.before, run.peak, run.after) if parts is not None)
        peaks[run.child] = max(peaks.get(run.child, 0), held)
    return tuple(peaks.values())


def learn_from_history(model: PoolModel, runs: Iterable[StoredRun]) -> PoolModel:
    """Return the memory model updated with these runs, as the supervisor would have learned from them."""
    for run in sorted(runs, key=lambda each: each.ended):
        if run.before is None or run.after is None or sum(run.tasks.values()) != 1:
            continue
        (name,) = run.tasks
        model = learn_idle(model, min(run.before.total, run.after.total))
        model = learn(
            model,
            TaskRun(
                pool=run.pool,
                task_name=name,
                tasks_before=run.place,
                before_bytes=run.before.total,
                peak_bytes=run.peak.total,
                after_bytes=run.after.total,
            ),
        )
    return model


@dataclass
class Tuning:
    """A tuning under way."""

    context: RunContext
    file: RunFile
    windows: list[Window]
    """Those of a run that is resumed among them."""
    learned: PoolModel
    """What the tasks cost in memory."""

    def measure_all(self) -> None:
        """Measure what is missing, round by round."""
        spec = self.context.spec
        while (step := plan_next(self.windows, spec)) is not None:
            if why := why_skip(step.level, self.windows):
                window = skip_window(step.level, step.repeat, self.windows[0], why)
            else:
                ahead = list_ahead(step.repeat, self.windows, spec)
                left_seconds = sum(expect_seconds(level, self.windows, spec) for level in ahead)
                done = len(self.windows)
                self.context.progress.begin(done, done + len(ahead), left_seconds, step.level)
                window, runs = measure_window(self.context, step)
                self.learned = learn_from_history(self.learned, runs)
            if window.stopped:
                self.context.progress.note(
                    f"concurrency {step.level.concurrency} is given up: {window.stopped}"
                )
            self.windows.append(window)
            self.file.add(Closed(window, self.learned))

    def measure_loads(
        self, objective: Objective, trace: Sequence[float] | None, done: Iterable[OpenLoopWindow]
    ) -> list[OpenLoopWindow]:
        """Measure each load that was asked for and is not done, at the recommended level if there is one."""
        opened, spec = list(done), self.context.spec
        settings = recommend(self.windows, objective).settings
        if settings is None or settings.result.per_second is None:
            return opened
        level, capacity = settings.result.level, settings.result.per_second.value
        for load in spec.loads:
            if any(window.load == load for window in opened):
                continue
            rate = parse_rate(load, capacity)
            seconds = min(spec.most_seconds, max(spec.least_seconds, LOAD_TASKS / rate))
            if trace is not None:
                times = stretch_trace(trace, rate, seconds)
            else:
                times = draw_arrivals(rate, seconds, spec.seed)
            done_windows, total = len(self.windows) + len(opened), len(self.windows) + len(spec.loads)
            self.context.progress.begin(done_windows, total, seconds + AROUND_SECONDS, level)
            opened.append(measure_load(self.context, level, load, times or [0.0]))
            self.file.add(Opened(opened[-1]))
        return opened
