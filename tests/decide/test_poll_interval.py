"""How soon the next look comes."""

from dataclasses import replace

from recyclery.decide.pressure import (
    ALERT_SECONDS,
    BROWSER_START_SECONDS,
    CALM_SECONDS,
    URGENT_SECONDS,
    poll_interval_seconds,
)
from support.snapshots import AT, SETTINGS, snapshot


def test_far_from_the_limit_a_look_a_second_is_enough() -> None:
    assert poll_interval_seconds(snapshot(floor_mib=600), None, SETTINGS) == CALM_SECONDS
    assert poll_interval_seconds(None, None, SETTINGS) == CALM_SECONDS


def test_near_the_limit_looks_come_sooner_and_soonest_when_it_would_be_reached_before_the_next() -> None:
    before = replace(snapshot(floor_mib=700), at=AT - 0.2)
    assert poll_interval_seconds(snapshot(floor_mib=720), before, SETTINGS) == ALERT_SECONDS
    assert poll_interval_seconds(snapshot(floor_mib=850), before, SETTINGS) == URGENT_SECONDS


def test_near_the_limit_a_late_look_is_followed_by_another_at_once() -> None:
    late = replace(snapshot(floor_mib=720), late_seconds=3.0)
    assert poll_interval_seconds(late, None, SETTINGS) == URGENT_SECONDS


def test_two_looks_at_one_moment_tell_of_no_rise() -> None:
    seen = snapshot(floor_mib=720)
    assert poll_interval_seconds(seen, replace(snapshot(floor_mib=100), at=seen.at), SETTINGS) == ALERT_SECONDS


def test_a_browser_that_has_just_started_is_looked_at_again_soon() -> None:
    seen = replace(snapshot(floor_mib=100), browsers_starting=True)
    assert poll_interval_seconds(seen, None, SETTINGS) == BROWSER_START_SECONDS
