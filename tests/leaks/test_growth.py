"""Which task leaves how much where, and in what shape: found in pools whose leaks are known."""

from dataclasses import replace

import pytest

from benchmarks.leak_worlds import MIB, Planted, live
from recyclery.history.reader import StoredRun
from recyclery.history.records import Parts
from recyclery.leaks.growth import TaskGrowth, classify_growth

NONE = Planted("nothing", "none")
LEAK = Planted("leak", "leak", mib=4)


def judge(*tasks: Planted, runs: int = 200, life: int = 100, browsers: bool = False) -> dict[str, TaskGrowth]:
    """Let a pool of these tasks run, and judge it."""
    found, _ = live(tasks, runs, life, "a test", browsers=browsers)
    return {growth.task: growth for growth in classify_growth(found)}


def test_of_tasks_that_share_a_child_the_one_that_leaks_is_named() -> None:
    found = judge(LEAK, NONE)
    assert (found["leak"].shape, found["nothing"].shape) == ("leak", "none")
    assert found["leak"].mean_bytes / MIB == pytest.approx(4, rel=0.1)
    assert abs(found["nothing"].mean_bytes) < 0.1 * MIB


@pytest.mark.parametrize("place", ["python", "browser", "shared"])
def test_a_leak_is_found_in_its_place(place: str) -> None:
    found = judge(Planted("leak", "leak", place, 5), NONE, browsers=True)
    assert (found["leak"].place, found["leak"].shape) == (place, "leak")


def test_a_browser_that_wanders_hides_no_small_leak_of_python() -> None:
    found = judge(Planted("leak", "leak", mib=0.5), NONE, browsers=True)
    assert (found["leak"].place, found["leak"].shape) == ("python", "leak")
    assert found["leak"].places["python"].mean_bytes / MIB == pytest.approx(0.5, rel=0.15)


def test_a_cache_that_fills_is_a_plateau() -> None:
    assert judge(Planted("cache", "plateau", warm_up=60), runs=300)["cache"].shape == "plateau"


def test_few_runs_that_leave_much_are_a_step() -> None:
    assert judge(Planted("step", "step", mib=4), NONE)["step"].shape == "step"


def test_what_a_childs_first_run_opens_for_all_the_next_is_no_growth() -> None:
    found, _ = live([NONE], 60, 30, "a test")
    opened = [
        run if run.place else with_after(run, python=run.after.python + 200 * MIB)
        for run in raised(found, 200 * MIB)
        if run.after is not None
    ]
    (growth,) = classify_growth(opened)
    assert abs(growth.mean_bytes) < 0.1 * MIB
    assert growth.shape == "none"


def raised(runs: list[StoredRun], size: int) -> list[StoredRun]:
    """Return the runs of children that hold so much more after their first one."""
    return [
        replace(run, before=more(run.before, size), after=more(run.after, size)) if run.place else run
        for run in runs
    ]


def more(parts: Parts | None, size: int) -> Parts:
    assert parts is not None
    return parts._replace(python=parts.python + size)


def with_after(run: StoredRun, python: int) -> StoredRun:
    assert run.after is not None
    return replace(run, after=run.after._replace(python=python))


def test_few_runs_are_not_judged() -> None:
    growth = judge(LEAK, NONE, runs=12)["leak"]
    assert growth.shape == "undecided"
    assert growth.places["python"].low_bytes < 4 * MIB < growth.places["python"].high_bytes


def test_lives_too_short_to_tell_a_leak_from_a_warm_up_leave_it_undecided() -> None:
    assert judge(Planted("cache", "plateau", warm_up=60), NONE, life=8)["cache"].shape == "undecided"


def test_one_reading_far_off_is_no_step() -> None:
    runs, _ = live([NONE], 200, 100, "a test")
    off = runs[50]
    assert off.after is not None
    runs[50] = with_after(off, python=off.after.python + 40 * MIB)
    runs[51] = replace(runs[51], before=runs[50].after)
    (growth,) = classify_growth(runs)
    assert growth.shape == "none"
    assert abs(growth.mean_bytes) < 0.1 * MIB


def test_short_runs_of_several_names_that_ended_together_still_tell_the_tasks_apart() -> None:
    runs, _ = live([LEAK, NONE], 200, 100, "a test")
    joined = []
    for first, second in zip(runs[::2], runs[1::2], strict=True):
        both: dict[str, int] = {}
        for run in (first, second):
            for task, count in run.tasks.items():
                both[task] = both.get(task, 0) + count
        joined.append(replace(first, tasks=both, after=second.after))
    found = {growth.task: growth for growth in classify_growth(joined)}
    assert found["leak"].mean_bytes / MIB == pytest.approx(4, rel=0.15)
    assert abs(found["nothing"].mean_bytes) < 0.4 * MIB


def test_a_run_that_nobody_saw_the_end_of_is_left_out() -> None:
    runs, _ = live([NONE], 100, 100, "a test")
    died = replace(runs[99], after=None, outcome="oom")
    (growth,) = classify_growth([*runs[:99], died])
    assert (growth.runs + 1, growth.seen) == (99, 100)
