"""Files in /dev/shm belong to no process: whose they are is told by when they came."""

import random
from dataclasses import replace

from benchmarks.leak_worlds import MIB, Planted, live
from recyclery.leaks.growth import TaskGrowth, classify_growth
from recyclery.leaks.report import shm_files

TASKS = (Planted("leaves files", "none"), Planted("innocent", "none"))


def judge(mib_per_run: float) -> dict[str, TaskGrowth]:
    """Let two tasks run in turns, one of which leaves files."""
    runs, _ = live(TASKS, 200, 100, "a test")
    chance = random.Random(3)
    at, runs_in_time = 60_000.0, []
    for run in runs:
        at += chance.expovariate(1 / 20)
        runs_in_time.append(replace(run, ended=at))
    first, last = int(runs_in_time[0].ended // 60) - 1, int(at // 60)
    minutes = []
    for minute in range(first, last + 1):
        done = [run for run in runs_in_time if run.ended // 60 <= minute and "leaves files" in run.tasks]
        minutes.append((minute, round(len(done) * mib_per_run * MIB)))
    found = shm_files({"slow": classify_growth(runs)}, {"slow": runs_in_time}, minutes)
    return {growth.task: growth for growth in found["slow"]}


def test_the_task_that_leaves_files_is_named_and_the_one_beside_it_is_not() -> None:
    found = judge(2.0)
    assert (found["leaves files"].shape, found["leaves files"].place) == ("leak", "files")
    assert abs(found["leaves files"].mean_bytes / MIB - 2) < 0.2
    assert found["innocent"].shape == "none"


def test_without_files_in_shm_no_task_has_the_place_files() -> None:
    assert all("files" not in growth.places for growth in judge(0.0).values())
