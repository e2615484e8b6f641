"""Settings changed while the supervisor runs."""

import pytest
from msgspec import structs

from recyclery.config.fields import BadConfiguration
from recyclery.config.settings import FAST, Settings, change_settings, follow_file
from recyclery.config.sources import CommandLine, load_settings


def settings() -> Settings:
    return load_settings(CommandLine(), {"CELERY_APP": "sample_app"})


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("max_tasks_per_child", "5", (1, None, 5, True)),
        ("concurrency", "3", (3, None, 10, True)),
        ("concurrency", "{ min = 1, max = 4 }", (1, 4, 10, True)),
        ("reap_leftover_browsers", "false", (1, None, 10, False)),
    ],
)
def test_a_pools_setting_is_changed(key: str, text: str, expected: tuple[object, ...]) -> None:
    slow = change_settings(settings(), "slow", {key: text}).pools[1]
    assert (
        slow.concurrency,
        slow.concurrency_most,
        slow.max_tasks_per_child,
        slow.reap_leftover_browsers,
    ) == expected


def test_memory_levels_and_the_limit_are_changed() -> None:
    memory = change_settings(settings(), "memory", {"limit_bytes": "768MiB", "risk_percent": "0.5"}).memory
    assert (memory.limit_bytes, memory.risk_percent) == (768 << 20, 0.5)


def test_what_makes_a_browser_a_runaway_is_changed() -> None:
    changed = change_settings(settings(), "browsers", {"silent_seconds": "0", "max_percent": "40"})
    browsers = changed.browsers
    assert (browsers.silent_seconds, browsers.max_percent, browsers.max_age_seconds) == (0, 40, 21600)


@pytest.mark.parametrize(
    ("table", "key", "text", "words"),
    [
        ("slow", "concurrency", "0", ["slow concurrency is 0 (by set)", "whole number"]),
        ("slow", "concurrency", "{ min = 3, max = 1 }", ["min not above the max"]),
        ("slow", "queues", "low", ["slow queues is taken from the file, by a HUP", "max_tasks_per_child"]),
        ("slow", "speed", "1", ["is not a setting"]),
        ("slim", "concurrency", "1", ["'slim' is no pool", "fast, slow, memory, browsers, alerts, history"]),
        ("memory", "hard_percent", "85", ["each must be above the one before"]),
        ("memory", "retire_percent", "much", ["'much'", "whole number"]),
        ("browsers", "silent_seconds", "-1", ["browsers silent_seconds is -1 (by set)", "from 0 to 86400"]),
        ("browsers", "colour", "1", ["is not a setting", "silent_seconds, max_percent, max_age_seconds"]),
    ],
)
def test_what_cannot_be_changed_is_told_with_the_way_out(
    table: str, key: str, text: str, words: list[str]
) -> None:
    with pytest.raises(BadConfiguration) as told:
        change_settings(settings(), table, {key: text})
    assert [word for word in words if word not in str(told.value)] == []


def test_a_new_look_at_the_file_takes_over_what_can_be_changed_and_says_what_must_wait() -> None:
    running = settings()
    fast, slow = running.pools
    fresh = structs.replace(
        running,
        pools=(
            structs.replace(slow, max_tasks_per_child=5, queues=("low", "bulk")),
            structs.replace(fast, name="new"),
        ),
        browsers=structs.replace(running.browsers, max_percent=60),
        grace_seconds=9.0,
        drain_seconds=30.0,
    )
    followed, changes, waiting = follow_file(running, fresh)
    assert [pool.name for pool in followed.pools] == ["fast", "slow"]
    assert (followed.pools[1].max_tasks_per_child, followed.pools[1].queues) == (5, ("low", "bulk"))
    assert followed.browsers.max_percent == 60
    assert changes == [
        "slow queues is ('low', 'bulk'), was ('low',)",
        "slow max_tasks_per_child is 5, was 10",
        "slow gets a new worker for it",
        "browsers max_percent is 60, was 75",
        "drain_seconds is 30.0, was 600.0",
    ]
    assert waiting == [
        "fast is no longer named",
        "new is new",
        "grace_seconds is 9.0",
    ]


@pytest.mark.parametrize(
    "text", ["9" * 400, "9" * 5000, "0x" + "f" * 5000, "[" * 5000 + "]" * 5000], ids=range(4)
)
def test_a_value_longer_than_any_sense_is_told_like_another(text: str) -> None:
    with pytest.raises(BadConfiguration, match=r"memory limit_bytes is .* a size of at least 64MiB"):
        change_settings(settings(), "memory", {"limit_bytes": text})


@pytest.mark.parametrize(
    ("options", "runs_beat"),
    [
        (("-B",), True),
        (("-E", "--beat"), True),
        (("-EB",), True),
        (("-BE",), True),
        (("-E", "--time-limit=300"), False),
        (("-X", "B"), False),
        (("-XB", "--beatless"), False),
    ],
)
def test_a_pool_knows_whether_beat_runs_inside_its_worker(options: tuple[str, ...], runs_beat: bool) -> None:
    assert structs.replace(FAST, celery_options=options).runs_beat is runs_beat
