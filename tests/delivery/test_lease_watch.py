"""Who is dead, by leases that are not renewed, whatever the clocks say."""

from typing import Any

import pytest

from recyclery_worker.delivery.registry import LEASE_SECONDS, RENEW_SECONDS, LeaseWatch

HOUR = 3600.0


def look_at(*leases: float | None, every: float = RENEW_SECONDS) -> list[float]:
    """Show a watch one lease after the other; return when it finds the worker dead."""
    watch, found = LeaseWatch(), []
    for number, lease in enumerate(leases):
        if watch.find_dead({"id": lease}, 1000 + number * every) == ["id"]:
            found.append(number * every)
    return found


def test_a_lease_that_is_not_renewed_is_dead_after_its_time() -> None:
    assert look_at(*[50.0] * 7) == [LEASE_SECONDS, LEASE_SECONDS + RENEW_SECONDS]


@pytest.mark.parametrize("step", [HOUR, -HOUR, 60.0, -1.0])
def test_a_lease_that_is_renewed_is_alive_however_redis_clock_steps(step: float) -> None:
    leases = [number * RENEW_SECONDS + (step if number > 5 else 0) for number in range(20)]
    assert look_at(*leases) == []


@pytest.mark.parametrize("until", [-HOUR, 1e12])
def test_a_lease_until_any_time_is_dead_when_nobody_renews_it(until: float) -> None:
    assert look_at(*[until] * 6) == [LEASE_SECONDS]


def test_a_lease_that_is_gone_is_dead_after_its_time_too() -> None:
    assert look_at(*[None] * 6) == [LEASE_SECONDS]


def test_a_worker_whose_lease_was_taken_away_by_one_that_died_is_still_dead() -> None:
    assert look_at(50.0, 50.0, None, None, None, None) == [LEASE_SECONDS]


def test_a_worker_that_registers_again_is_alive() -> None:
    assert look_at(50.0, None, None, 55.0, 57.0, 59.0, 61.0) == []


def test_the_time_in_which_nobody_looked_does_not_count() -> None:
    watch = LeaseWatch()
    assert watch.find_dead({"id": 50.0}, 0) == []
    # As after a suspended virtual machine was resumed: its workers had no time either.
    assert watch.find_dead({"id": 50.0}, HOUR) == []
    assert watch.find_dead({"id": 52.0}, HOUR + RENEW_SECONDS) == []


def test_a_worker_that_starts_later_has_its_whole_time() -> None:
    watch = LeaseWatch()
    watch.find_dead({}, 0)
    dead: list[Any] = [watch.find_dead({"id": 50.0}, 4.0 + 2 * number) for number in range(6)]
    assert dead == [[], [], [], [], [], ["id"]]


def test_a_worker_that_could_not_be_given_back_is_found_again_later() -> None:
    watch = LeaseWatch()
    found = []
    for at in range(0, 26, 2):
        if watch.find_dead({"id": 50.0}, at):
            found.append(at)
            watch.restart("id")
    assert found == [10, 22]
