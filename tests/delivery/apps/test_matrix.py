"""Every app shape times every way to die: no task is lost, and none runs twice, but where the docs say so.

The whole has the mark `matrix`. The daily part plays every shape once, in a way that is drawn from a seed:
RECYCLERY_CHAOS_SEED plays it again.
"""

import os
import random
from collections.abc import Iterator, Mapping
from concurrent.futures import Future

import pytest

from chaos.player import say
from delivery.apps.compare import HEADERS, Found, playing, read_table
from delivery.apps.containers import ours
from delivery.apps.table import EARLY
from delivery.apps.ways import LATE, Way, draw_ways, judge, promised

SEED = int(os.environ.get("RECYCLERY_CHAOS_SEED", random.randrange(1 << 32)))
Played = Mapping[str, Future[Found]]


@pytest.fixture(scope="module")
def daily_part(request: pytest.FixtureRequest) -> Iterator[Played]:
    """The shapes that were chosen, each played in the way that is its today."""
    drawn = draw_ways(SEED)
    with playing(ours, {shape: drawn[shape] for shape in list_chosen(request)}) as played:
        yield played


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest) -> Iterator[Played]:
    """The shapes that were chosen, each played in every way."""
    with playing(ours, dict.fromkeys(list_chosen(request), tuple(Way))) as played:
        yield played


def list_chosen(request: pytest.FixtureRequest) -> list[str]:
    """Return the shapes of the tests that will use this fixture."""
    shapes: dict[str, None] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and request.fixturename in item.fixturenames:
            shapes[str(item.callspec.params["shape"])] = None
    return [*shapes]


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shape", EARLY)
def test_whatever_the_app_and_whatever_ends_its_task_today_it_becomes_what_is_promised(
    daily_part: Played, shape: str
) -> None:
    ways = draw_ways(SEED)[shape]
    say(f"RECYCLERY_CHAOS_SEED={SEED} {shape}: {', '.join(ways)}")
    assert daily_part[shape].result() == {way: promised(shape, way) for way in ways}


@pytest.mark.matrix
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", Way, ids=lambda way: way.name)
@pytest.mark.parametrize("shape", EARLY)
def test_whatever_the_app_and_whatever_ends_its_task_it_becomes_what_is_promised(
    whole: Played, shape: str, way: Way
) -> None:
    assert whole[shape].result()[way] == promised(shape, way)


def test_every_seed_draws_every_way_and_another_one_for_each_shape() -> None:
    for seed in range(100):
        drawn = draw_ways(seed)
        assert {*drawn} == {*EARLY}
        assert {way for ways in drawn.values() for way in ways} == {*Way}
    assert draw_ways(1) == draw_ways(1) != draw_ways(2)


@pytest.mark.parametrize(
    ("seen", "outcome"),
    [
        ({"begun": 1, "ended": 1}, "runs once"),
        ({"begun": 2, "ended": 1}, "runs again"),
        ({"begun": 1, "ended": 0, "is_told": True}, "fails"),
        ({"begun": 1, "ended": 0}, "is lost"),
        ({"begun": 1, "ended": 0, "is_held": True, "is_told": True}, "waits an hour"),
        ({"begun": 3, "ended": 0, "is_parked": True, "is_told": True}, "is parked"),
        ({"begun": 4, "ended": 1}, "runs again and again"),
        (
            {"begun": 4, "ended": 0, "is_parked": True},
            "began 4 and ended 0 times; parked: True, held: False, told: False",
        ),
        ({"begun": 2, "ended": 0, "is_told": True}, "runs again and fails"),
        ({"begun": 2, "ended": 2}, "began 2 and ended 2 times; parked: False, held: False, told: False"),
        ({"begun": 2, "ended": 0}, "began 2 and ended 0 times; parked: False, held: False, told: False"),
    ],
)
def test_what_became_of_a_task_is_named_and_what_nobody_expects_is_described(
    seen: dict[str, int], outcome: str
) -> None:
    nothing = {"is_parked": False, "is_held": False, "is_told": False}
    assert judge(**{**nothing, **seen}) == outcome  # type: ignore[arg-type]


def test_the_table_in_the_docs_promises_what_is_tested() -> None:
    rows = read_table()
    assert all(len(row) == len(HEADERS) for row in rows)
    assert {row[0]: row[1] for row in rows} == LATE
