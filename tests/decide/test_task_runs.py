"""What is learned of a pool's memory, and from which runs."""

from recyclery.decide.memory_model import (
    KEPT_RUNS,
    PoolModel,
    TaskRun,
    TaskTracker,
    headroom_bytes,
    learn,
    learn_idle,
    update_tracker,
)
from recyclery.decide.memory_model import update_trackers as follow_children
from recyclery.observe.snapshot import Child, Owner, Process
from support.snapshots import snapshot

MIB = 1 << 20


def run(before: int, peak: int, after: int) -> TaskRun:
    return TaskRun("slow", "task", 0, before * MIB, peak * MIB, after * MIB)


def seen(mib: int, *, done: int = 0, task: str | None = None, idle_mib: int = 0) -> Child:
    leader = Process(20, 2000, 10, 20, "S", "python", mib * MIB)
    return Child(
        owner=Owner("slow", 20, 2000),
        processes=(leader,),
        tasks_done=done,
        task_id=task,
        task_name=task,
        idle_bytes=idle_mib * MIB,
    )


def follow(*looks: Child) -> list[TaskRun]:
    track: TaskTracker | None = None
    runs = []
    for look in looks:
        track, ended = update_tracker(track, look)
        if ended is not None:
            runs.append(ended)
    return runs


def test_nothing_learned_promises_nothing() -> None:
    assert (PoolModel().baseline_bytes, headroom_bytes(PoolModel())) == (None, 0)


def test_the_baseline_is_the_smallest_idle_tree() -> None:
    model = learn_idle(learn_idle(learn_idle(PoolModel(), 55 * MIB), 50 * MIB), 60 * MIB)
    assert model.baseline_bytes == 50 * MIB


def test_the_tail_is_the_largest_peak_above_its_start_with_a_margin_while_few_are_known() -> None:
    model = learn(learn(PoolModel(), run(50, 300, 55)), run(55, 255, 60))
    assert headroom_bytes(model) == 375 * MIB


def test_the_margin_goes_when_enough_is_known_and_all_peaks_are_alike() -> None:
    model = PoolModel()
    for _ in range(20):
        model = learn(model, run(50, 300, 55))
    assert headroom_bytes(model) == 250 * MIB


def test_old_runs_are_forgotten() -> None:
    model = learn(PoolModel(), run(50, 900, 50))
    for _ in range(KEPT_RUNS):
        model = learn(model, run(50, 150, 50))
    assert headroom_bytes(model) == 100 * MIB


def test_a_run_is_told_by_its_start_its_peak_and_its_end() -> None:
    (ended,) = follow(seen(50), seen(200, task="t"), seen(300, task="t"), seen(150, task="t"), seen(55, done=1))
    assert (ended.task_name, ended.before_bytes, ended.peak_bytes, ended.after_bytes) == (
        "t", 50 * MIB, 300 * MIB, 55 * MIB,
    )  # fmt: skip


def test_a_task_too_short_to_be_seen_running_is_a_run_all_the_same() -> None:
    (ended,) = follow(seen(50), seen(60, done=1))
    assert (ended.before_bytes, ended.after_bytes) == (50 * MIB, 60 * MIB)


def test_a_run_whose_end_was_not_seen_idle_tells_its_peak_and_not_what_it_left() -> None:
    (ended,) = follow(seen(50), seen(200, task="t"), seen(200, done=1, task="u"))
    assert (ended.before_bytes, ended.peak_bytes, ended.after_bytes) == (50 * MIB, 200 * MIB, None)


def test_a_run_whose_end_only_the_child_saw_is_told_by_its_word() -> None:
    first, second = follow(
        seen(50),
        seen(200, task="t"),
        seen(210, done=1, task="u", idle_mib=60),
        seen(250, done=1, task="u", idle_mib=60),
        seen(90, done=2),
    )
    assert (first.before_bytes, first.peak_bytes, first.after_bytes) == (50 * MIB, 200 * MIB, 60 * MIB)
    assert (second.before_bytes, second.peak_bytes, second.after_bytes) == (60 * MIB, 250 * MIB, 90 * MIB)


def test_two_tasks_between_two_looks_teach_nothing() -> None:
    assert follow(seen(50), seen(70, done=2)) == []


def test_a_large_task_with_small_ones_at_its_heels_tells_its_peak_and_not_what_it_left() -> None:
    (ended,) = follow(seen(50), seen(280, task="t"), seen(60, done=12))
    assert (ended.task_name, ended.peak_bytes, ended.after_bytes) == ("t", 280 * MIB, None)


def test_a_run_of_which_only_the_peak_is_known_adds_to_the_tails_alone() -> None:
    model = learn(PoolModel(), TaskRun("slow", "t", 0, 50 * MIB, 280 * MIB, None))
    assert (model.tails, model.steps) == ((230 * MIB,), ())
    assert (model.tasks["t"].runs, model.tasks["t"].largest_tail_bytes) == (0, 230 * MIB)


def test_an_idle_child_that_shrinks_begins_its_next_task_from_there() -> None:
    (ended,) = follow(seen(300), seen(60), seen(200, task="t"), seen(65, done=1))
    assert ended.before_bytes == 60 * MIB


def test_an_idle_child_that_seems_to_grow_has_begun_a_task_nobody_told_of() -> None:
    looks = (seen(50), seen(60, done=1), seen(200, done=1), seen(250, done=1, task="t"), seen(65, done=2))
    assert [run.before_bytes for run in follow(*looks)] == [50 * MIB, 60 * MIB]


def test_children_are_followed_each_by_itself_and_forgotten_when_gone() -> None:
    looks = [
        snapshot(seen(50)),
        snapshot(seen(200, task="t")),
        snapshot(seen(60, done=1)),
        snapshot(),
    ]
    tracks: dict[Owner, TaskTracker] = {}
    runs = []
    for look in looks:
        tracks, ended = follow_children(tracks, look)
        runs += ended
    assert [(run.before_bytes, run.after_bytes) for run in runs] == [(50 * MIB, 60 * MIB)]
    assert tracks == {}
