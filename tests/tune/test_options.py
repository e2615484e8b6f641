"""What `recyclery tune` is told, and what it says of what cannot be."""

import argparse
from pathlib import Path

import pytest

from recyclery.config.fields import BadConfiguration
from recyclery.tune import add_arguments
from recyclery.tune.options import TRACE_LOADS, read_objective, read_spec, resume_spec
from recyclery.tune.spec import Spec

LINE = ("--app", "proj", "--pool", "slow", "--task", "proj.task")


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def read(*words: str) -> Spec:
    spec, _ = read_spec(parse(*LINE, *words), {})
    return spec


def test_without_a_word_the_pools_own_tasks_per_child_and_doubling_levels_are_tried() -> None:
    spec = read()
    assert (spec.concurrencies, spec.max_tasks, spec.asked_for) == ((1, 2, 4, 8, 16), (10,), False)
    assert (spec.repeats, spec.least_seconds, spec.most_seconds) == (3, 10.0, 300.0)


def test_repeats_that_were_named_are_neither_more_nor_fewer() -> None:
    assert (read().repeats, read().most_repeats) == (3, 10)
    assert (read("--repeats", "4").repeats, read("--repeats", "4").most_repeats) == (4, 4)


def test_levels_that_were_named_are_tried_in_ascending_order_each_once() -> None:
    spec = read("--concurrency", "4,1,4", "--max-tasks-per-child", "20,5")
    assert (spec.concurrencies, spec.max_tasks, spec.asked_for) == ((1, 4), (5, 20), True)
    assert [level.concurrency for level in spec.levels] == [1, 1, 4, 4]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--app", "proj", "--task", "x"), "--pool is missing"),
        (("--app", "proj", "--pool", "slow"), "--task is missing"),
        (("--app", "proj", "--pool", "none", "--task", "x"), "it must be one of fast, slow"),
        ((*LINE, "--concurrency", "1,none"), "--concurrency is 'none'"),
        ((*LINE, "--memory", "2"), "--memory"),
        ((*LINE, "--rate", "fast"), "--rate is 'fast'"),
        ((*LINE, "--repeats", "0"), "--repeats is '0'"),
    ],
)
def test_what_cannot_be_is_named_with_what_is_allowed(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadConfiguration, match=said):
        read_spec(parse(*words), {})


def test_the_pool_that_the_environment_names_can_be_tuned() -> None:
    environment = {"CELERY_WORKER_NAME": "scrape", "CELERY_QUEUES": "web", "CELERY_MAX_TASKS_PER_CHILD": "7"}
    line = ("--app", "proj", "--pool", "scrape", "--task", "proj.task")
    spec, settings = read_spec(parse(*line), environment)
    assert (spec.max_tasks, settings.pools[0].queues) == ((7,), ("web",))


def test_a_pool_without_children_of_its_own_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "recyclery.toml"
    config.write_text('[pools.slow]\nimplementation = "threads"\n')
    with pytest.raises(BadConfiguration, match="only a prefork pool"):
        read("--config", str(config))


def test_the_rate_is_what_containers_are_counted_for_and_a_share_is_not() -> None:
    args = parse(*LINE, "--rate", "85%", "--rate", "30/min", "--slo", "30s")
    objective = read_objective(args, read("--rate", "85%", "--rate", "30/min"))
    assert (objective.arrivals_per_second, objective.slo_seconds) == (0.5, 30.0)


def test_a_trace_is_tried_at_three_shares_of_the_capacity() -> None:
    assert read("--trace", "low.trace").loads == TRACE_LOADS


def test_a_run_goes_on_as_it_began_but_for_further_loads() -> None:
    spec = read("--rate", "1/s")
    assert resume_spec(parse("--resume", "run", "--rate", "2/s"), spec).loads == ("1/s", "2/s")
    with pytest.raises(BadConfiguration, match="--concurrency has no say beside --resume"):
        resume_spec(parse("--resume", "run", "--concurrency", "3"), spec)
