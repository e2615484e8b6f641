"""The laws of throughput and memory: levels left out of them, and when there are none."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from recyclery.tune.cpu_share import CpuShare, fit_away
from recyclery.tune.fitting import Refused
from recyclery.tune.levels import measure_levels
from recyclery.tune.memory import Peaks, fit_peaks
from recyclery.tune.throughput import Throughput, fit_throughput
from recyclery.tune.windows import Level, Window
from tune.worlds import MIB, World, measure

WORLDS = {
    "CPU": World(cpu_seconds=1),
    "sleep": World(sleep_seconds=1),
    "lock": World(lock_seconds=1),
    "memory": World(sleep_seconds=1, cpu_seconds=0.2, growth_mib=2, limit_mib=1000),
    "sleep and CPU": World(sleep_seconds=0.5, cpu_seconds=0.5),
}
CONCURRENCIES = (1, 2, 3, 4, 6, 8)


def run(world: World, concurrencies: Sequence[int] = CONCURRENCIES, seed: object = 0) -> list[Window]:
    """Run each level three times."""
    return [
        measure(world, Level(places, 20), repeat, 60, seed) for places in concurrencies for repeat in range(3)
    ]


def leave_out(windows: Sequence[Window]) -> list[tuple[float, float]]:
    """Return how far off throughput and peak of each level between others are, told from those others."""
    whole = [measured for measured in measure_levels(windows) if not measured.stopped]
    off = []
    for measured in whole[1:-1]:
        rest = [window for window in windows if window.level != measured.level]
        throughput, memory = fit_throughput(rest), fit_peaks(rest)
        assert isinstance(throughput, Throughput)
        assert isinstance(memory, Peaks)
        assert measured.per_second is not None
        assert measured.peak_floor_bytes is not None
        speed = throughput.at(measured.level).value / measured.per_second.value
        peak = memory.at(measured.level).value / measured.peak_floor_bytes.value
        off.append((abs(speed - 1), abs(peak - 1)))
    return off


@pytest.mark.parametrize("kind", WORLDS)
def test_a_level_left_out_is_predicted_within_5_percent_where_nothing_is_noise(kind: str) -> None:
    off = leave_out(run(replace(WORLDS[kind], noise=0, variation=0.1), seed="quiet"))
    assert len(off) >= 3
    assert max(map(max, off)) < 0.05


@pytest.mark.parametrize("kind", WORLDS)
def test_under_noise_19_of_20_levels_left_out_are_predicted_within_15_percent(kind: str) -> None:
    off = [pair for seed in range(8) for pair in leave_out(run(WORLDS[kind], seed=seed))]
    assert len(off) >= 24
    assert sum(speed < 0.15 for speed, _ in off) >= 0.95 * len(off)
    assert sum(peak < 0.15 for _, peak in off) >= 0.95 * len(off)


def test_the_band_has_the_truth_in_it() -> None:
    law = fit_throughput(run(WORLDS["sleep"]))
    assert isinstance(law, Throughput)
    inside = [
        estimate.low <= places <= estimate.high
        for places in CONCURRENCIES
        for estimate in [law.at(Level(places, 20))]
    ]
    assert sum(inside) >= len(inside) - 1


def test_tasks_that_only_sleep_neither_contend_nor_cohere() -> None:
    law = fit_throughput(run(World(sleep_seconds=1, noise=0, variation=0.01)))
    assert isinstance(law, Throughput)
    assert law.contention == pytest.approx(0, abs=0.01)
    assert law.coherence == pytest.approx(0, abs=0.01)
    assert law.alone_per_second == pytest.approx(1, rel=0.02)


def test_tasks_behind_one_lock_contend_for_all_their_time() -> None:
    law = fit_throughput(run(World(lock_seconds=1, noise=0, variation=0.01)))
    assert isinstance(law, Throughput)
    assert law.contention == pytest.approx(1, abs=0.05)


def test_beyond_the_levels_run_no_more_is_predicted_than_the_cpus_can_do() -> None:
    for seed in range(4):
        law = fit_throughput(run(World(sleep_seconds=0.9, cpu_seconds=0.1), (1, 2, 3, 4), seed))
        assert isinstance(law, Throughput)
        assert law.ceiling_per_second == pytest.approx(20)
        assert max(law.at(Level(places, 20)).high for places in (20, 50, 100)) <= law.ceiling_per_second


def test_too_few_levels_have_no_law() -> None:
    law = fit_throughput(run(WORLDS["CPU"], (1, 2, 4)))
    assert isinstance(law, Refused)
    assert law.why.startswith("3 levels of concurrency were measured")


def test_a_law_that_misses_levels_left_out_is_refused() -> None:
    # Every other level runs at half the speed: no law of scaling does that.
    fast, slow = World(sleep_seconds=1), World(sleep_seconds=2)
    windows = [*run(fast, (1, 3, 6)), *run(slow, (2, 4, 8))]
    law = fit_throughput(windows)
    assert isinstance(law, Refused)
    assert "misses it by" in law.why


def test_memory_that_the_supervisor_held_down_is_not_learned_from() -> None:
    world = World(sleep_seconds=1)
    held = [
        replace(window, peak_floor_bytes=300 * MIB, recycles=(("budget", 5),)) for window in run(world, (6, 8))
    ]
    law = fit_peaks([*run(world, (1, 2, 4)), *held])
    assert isinstance(law, Peaks)
    assert law.at(Level(8, 20)).value == pytest.approx(world.height_mib(8, 20) * MIB, rel=0.1)


def test_what_each_task_leaves_is_told_from_two_numbers_of_tasks_per_child() -> None:
    world = World(sleep_seconds=1, growth_mib=3, noise=0.02)
    windows = [
        measure(world, Level(places, tasks), repeat, 40, 0)
        for places in (1, 2, 4)
        for tasks in (5, 20)
        for repeat in range(2)
    ]
    law = fit_peaks(windows)
    assert isinstance(law, Peaks)
    assert law.growth_bytes / MIB == pytest.approx(3, rel=0.15)
    assert law.at(Level(3, 10)).value == pytest.approx(world.height_mib(3, 10) * MIB, rel=0.1)


@pytest.mark.parametrize(
    ("share", "places", "expected"),
    [
        (CpuShare(1.0, 0.0, 2.0), 1, 1.0),
        (CpuShare(1.0, 0.0, 2.0), 8, 2.0),
        # Half of the time away, one CPU, two tasks: idle only while both are away.
        (CpuShare(1.0, 1.0, 1.0), 2, 0.8),
        (CpuShare(0.001, 1.0, 2.0), 5, 5 / 1.001),
        (CpuShare(1.0, 0.0, 0.5), 4, 0.5),
    ],
)
def test_shared_cpus_give_what_the_closed_network_does(share: CpuShare, places: int, expected: float) -> None:
    assert share.per_second(places) == pytest.approx(expected, rel=1e-4)


def test_the_time_away_from_the_cpus_is_found_from_one_level() -> None:
    share = CpuShare(0.4, 0.6, 2.0)
    found = fit_away(0.4, 2.0, 5, 5 / share.per_second(5))
    assert found.away_seconds == pytest.approx(0.6, rel=1e-4)
