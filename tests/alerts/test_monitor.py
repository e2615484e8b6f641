"""What stands is told, and not forgotten over a restart of the governor."""

from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from recyclery.alerts.monitor import AlertTotals, Monitor
from recyclery.config.settings import SLOW, Alerts, Settings
from recyclery_worker.link import TaskTally
from support.ports import free_port
from support.snapshots import ANSWERED, SETTINGS, slow_view, snapshot

SEEN = snapshot(pools=(slow_view(vitals=ANSWERED),), floor_mib=100)


def settings_in(folder: Path, window_seconds: float = 600.0) -> Settings:
    """The slow pool alone; everything is told at once."""
    alerts = Alerts(lasting_seconds=0.0, window_seconds=window_seconds)
    return structs.replace(SETTINGS, pools=(SLOW,), alerts=alerts, runtime_dir=folder)


def monitor(settings: Settings) -> Monitor:
    """One whose webhook nobody serves."""
    return Monitor(settings, {"RECYCLERY_ALERT_URL": f"http://127.0.0.1:{free_port()}/a-secret"})


def counts(at: float = 100.0, failed: int = 0) -> AlertTotals:
    tally = TaskTally(since=0.0, succeeded=0, failed=failed, retried=0, queues={})
    return AlertTotals(at=at, tasks={"slow": tally}, restarts={}, oom_kills=0, parked=0)


def test_what_stands_is_counted_by_its_kind_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    settings = settings_in(tmp_path)
    watching = monitor(settings)
    watching.evaluate(settings, SEEN, counts(), {"slow": 12})
    firing = watching.count_firing()
    assert (firing["queue_depth"], sum(firing.values())) == (1, 1)
    assert "alert: queue_depth slow: slow: 12 tasks wait" in caplog.text
    assert "a-secret" not in caplog.text


def test_a_governor_that_is_started_again_tells_only_what_is_new(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    settings = settings_in(tmp_path)
    monitor(settings).evaluate(settings, SEEN, counts(), {"slow": 12})
    again = monitor(settings)
    again.evaluate(settings, SEEN, counts(), {"slow": 13})
    assert caplog.text.count("alert: queue_depth") == 1
    again.evaluate(settings, SEEN, counts(), {"slow": 0})
    assert "well again: queue_depth slow: slow: 0 tasks wait" in caplog.text
    assert monitor(settings).count_firing()["queue_depth"] == 0


def test_failures_are_those_of_the_window(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, window_seconds=60.0)
    watching = monitor(settings)
    stands = []
    for at, failed in ((0.0, 0), (30.0, 0), (40.0, 3), (90.0, 3), (101.0, 3)):
        watching.evaluate(settings, SEEN, counts(at, failed), {})
        stands.append(watching.count_firing()["task_failures"])
    assert stands == [0, 0, 1, 1, 0]


def test_failures_before_the_first_look_count_and_kills_before_it_do_not(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    watching = monitor(settings)
    watching.evaluate(settings, SEEN, replace(counts(failed=3), oom_kills=7), {})
    firing = watching.count_firing()
    assert (firing["task_failures"], firing["oom_kills"]) == (1, 0)


def test_a_worker_that_has_not_answered_yet_is_not_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    settings = settings_in(tmp_path)
    monitor(settings).evaluate(settings, snapshot(pools=(slow_view(),), floor_mib=100), counts(), {})
    assert "alert: pool_down slow: slow is starting" in caplog.text


def test_without_an_address_nothing_is_watched_or_counted(tmp_path: Path) -> None:
    assert Monitor(settings_in(tmp_path), {}).count_firing() == {}
