"""Where settings come from, which source wins, and how a bad value is told."""

from pathlib import Path

import pytest

from recyclery.config.fields import BadConfiguration
from recyclery.config.settings import FAST, SINGLE, SLOW, Settings, change_settings
from recyclery.config.sources import CommandLine, load_deployment, load_settings
from recyclery.pid1.supervisord_conf import worker_command

APP = {"CELERY_APP": "sample_app"}


def settings(environment: dict[str, str] | None = None, **line: object) -> Settings:
    """Return the settings; options are given by their name without the dashes."""
    where = {name: line.pop(name) for name in ("config", "single", "pools") if name in line}
    options = {f"--{name.replace('_', '-')}": str(value) for name, value in line.items()}
    return load_settings(CommandLine(**where, options=options), APP | (environment or {}))  # type: ignore[arg-type]


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "recyclery.toml"
    path.write_text(text)
    return str(path)


def test_fast_and_slow_run_when_nothing_is_said() -> None:
    assert settings().pools == (FAST, SLOW)


def test_the_built_in_pools_are_the_guides() -> None:
    assert (FAST.queues, FAST.concurrency, FAST.max_tasks_per_child) == (("high", "default"), 3, 100)
    assert (SLOW.queues, SLOW.concurrency, SLOW.max_tasks_per_child) == (("low",), 1, 10)


def test_single_is_one_worker_on_all_queues_at_concurrency_2() -> None:
    (pool,) = settings(single=True).pools
    assert (pool.queues, pool.concurrency) == (("high", "default", "low"), 2)


def test_a_worker_name_runs_that_pool_alone() -> None:
    assert settings({"CELERY_WORKER_NAME": "slow"}).pools == (SLOW,)


def test_queues_alone_find_the_pool_that_serves_them() -> None:
    assert settings({"CELERY_QUEUES": "default, high"}).pools[0].name == "fast"


def test_the_guides_variables_lie_over_the_built_in_pool() -> None:
    (pool,) = settings(
        {
            "CELERY_QUEUES": "low,bulk",
            "CELERY_WORKER_NAME": "slow",
            "CELERY_CONCURRENCY": "2",
            "CELERY_MAX_TASKS_PER_CHILD": "5",
        }
    ).pools
    assert (pool.name, pool.queues, pool.concurrency, pool.max_tasks_per_child) == (
        "slow",
        ("low", "bulk"),
        2,
        5,
    )


def test_a_new_worker_name_runs_on_the_queues_it_is_given() -> None:
    (pool,) = settings({"CELERY_QUEUES": "mail", "CELERY_WORKER_NAME": "mailer"}).pools
    assert (pool.name, pool.queues, pool.concurrency) == ("mailer", ("mail",), SINGLE.concurrency)


def test_a_variable_set_to_nothing_counts_as_not_set() -> None:
    assert settings({"CELERY_CONCURRENCY": "", "CELERY_WORKER_NAME": " "}).pools == (FAST, SLOW)


def test_the_files_pools_replace_the_built_in_ones(tmp_path: Path) -> None:
    config = written(tmp_path, '[pools.slow]\nconcurrency = 2\n[pools.mail]\nqueues = ["mail"]\n')
    pools = settings(config=config).pools
    assert [(pool.name, pool.queues, pool.concurrency) for pool in pools] == [
        ("slow", ("low",), 2),
        ("mail", ("mail",), 2),
    ]


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    config = written(tmp_path, 'app = "filed"\nlog_level = "error"\ngrace_seconds = 7\n')
    chosen = load_settings(
        CommandLine(config=config, options={"--app": "lined"}),
        {"CELERY_APP": "environed", "CELERY_LOG_LEVEL": "debug"},
    )
    assert (chosen.app, chosen.log_level, chosen.grace_seconds) == ("lined", "debug", 7.0)


def test_the_config_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    assert settings({"RECYCLERY_CONFIG": written(tmp_path, "grace_seconds = 9\n")}).grace_seconds == 9


def test_a_memory_limit_takes_units_of_1024() -> None:
    assert settings(memory_limit="1.5GiB").memory.limit_bytes == 3 << 29


def test_pools_may_be_picked_on_the_command_line() -> None:
    assert settings(pools=("slow",)).pools == (SLOW,)


@pytest.mark.parametrize(
    ("environment", "line", "words"),
    [
        ({"CELERY_MAX_TASKS_PER_CHILD": "ten", "CELERY_WORKER_NAME": "slow"}, {},
         ["CELERY_MAX_TASKS_PER_CHILD", "'ten'", "in the environment", "whole number from 1"]),
        ({"CELERY_CONCURRENCY": "-1", "CELERY_WORKER_NAME": "slow"}, {},
         ["CELERY_CONCURRENCY", "'-1'", "whole number from 1"]),
        ({"CELERY_QUEUES": ""}, {}, ["CELERY_QUEUES", "''", "one or more queue names"]),
        ({"CELERY_QUEUES": "high,,low"}, {}, ["CELERY_QUEUES", "one or more queue names"]),
        ({"CELERY_QUEUES": "a b"}, {}, ["CELERY_QUEUES", "'a b'"]),
        ({"CELERY_WORKER_NAME": "quick"}, {}, ["CELERY_WORKER_NAME", "'quick'", "fast, slow", "CELERY_QUEUES"]),
        ({"CELERY_WORKER_NAME": "Slow!"}, {}, ["CELERY_WORKER_NAME", "'Slow!'", "a-z"]),
        ({"CELERY_CONCURRENCY": "2"}, {}, ["CELERY_CONCURRENCY", "2 pools", "CELERY_WORKER_NAME"]),
        ({"CELERY_LOG_LEVEL": "loud"}, {}, ["CELERY_LOG_LEVEL", "'loud'", "debug, info"]),
        ({}, {"pools": ("quick",)}, ["--pool", "'quick'", "command line", "fast, slow"]),
        ({}, {"grace": "soon"}, ["--grace", "'soon'", "command line", "seconds"]),
        ({}, {"grace": "nan"}, ["--grace", "'nan'"]),
        ({}, {"app": "no-app"}, ["--app", "'no-app'", "dotted name"]),
        ({}, {"memory_limit": "1 potato"}, ["--memory-limit", "768MiB"]),
        ({}, {"config": "/nowhere.toml"}, ["/nowhere.toml", "No such file"]),
    ],
)  # fmt: skip
def test_a_bad_value_is_told_with_its_name_its_source_and_what_is_allowed(
    environment: dict[str, str], line: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(BadConfiguration) as told:
        settings(environment, **line)
    assert [word for word in words if word not in str(told.value)] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("app = ", ["is not TOML"]),
        ("nonsense = 1", ["nonsense", "is not a setting", "grace_seconds"]),
        ("[pools.slow]\nconcurrency = 0", ["[pools.slow] concurrency", "0", "whole number"]),
        ("[pools.slow]\nqueues = []", ["[pools.slow] queues", "one or more"]),
        ("[pools.slow]\nspeed = 1", ["[pools.slow] speed", "is not a setting"]),
        ("[pools.mail]\nconcurrency = 1", ["[pools.mail]", "needs `queues`"]),
        ("[pools]\nslow = 1", ["pools.slow", "must be a table"]),
        ("pools = 3", ["`pools`", "must be a table"]),
        ("[pools.governor]\nqueues = ['a']", ["governor"]),
        ("[memory]\nretire_percent = 96", ["retire_percent", "96", "above the one before"]),
        ("[memory]\nlimit_bytes = '3 MB'", ["limit_bytes", "64MiB"]),
        ("[memory]\nrisk_percent = 0", ["risk_percent", "0.01 to 50"]),
        ("[memory]\nrisk_percent = nan", ["risk_percent", "0.01 to 50"]),
        ("[browsers]\nmax_percent = 5", ["[browsers] max_percent", "from 10 to 100"]),
        ("[browsers]\nmax_age_seconds = 0", ["[browsers] max_age_seconds", "1 to 604800"]),
        ("[browsers]\nsilent = 3", ["[browsers] silent", "is not a setting", "silent_seconds"]),
        ("browsers = 3", ["`browsers`", "must be a table"]),
        ("grace_seconds = true", ["grace_seconds", "True"]),
    ],
)
def test_a_bad_file_is_told_with_its_name(tmp_path: Path, text: str, words: list[str]) -> None:
    config = written(tmp_path, text)
    with pytest.raises(BadConfiguration) as told:
        settings(config=config)
    assert [word for word in [*words, config] if word not in str(told.value)] == []


@pytest.mark.parametrize(
    ("text", "number", "words"),
    [
        ("[memory]\nlimit_bytes = {}", "9" * 400, ["[memory] limit_bytes", "a size of at least 64MiB"]),
        ("[history]\nmax_bytes = {}", "9" * 400, ["[history] max_bytes", "a size of at least 8MiB"]),
        ("[memory]\nrisk_percent = {}", "9" * 400, ["[memory] risk_percent", "0.01 to 50"]),
        ("[memory]\nretire_percent = {}", "9" * 400, ["[memory] retire_percent", "from 10 to 100"]),
        ("http = {}", "9" * 400, ["http is 9", "from 1 to 65535"]),
        ("[memory]\nlimit_bytes = {}", "9" * 5000, ["5000 digits"]),
        ("[memory]\nrisk_percent = {}", "0x" + "f" * 5000, ["4300 digits"]),
        ("[pools.fast]\nqueues = [{}]", "0x" + "f" * 5000, ["4300 digits"]),
        ("[alerts]\ntask_seconds = {{ high = {} }}", "0x" + "f" * 5000, ["4300 digits"]),
        ("app = {}", "[" * 5000 + "]" * 5000, ["is not TOML"]),
    ],
    ids=range(10),
)
def test_a_value_longer_than_any_sense_is_told_like_another(
    tmp_path: Path, text: str, number: str, words: list[str]
) -> None:
    test_a_bad_file_is_told_with_its_name(tmp_path, text.format(number), words)


def test_the_file_says_when_a_browser_is_a_runaway(tmp_path: Path) -> None:
    config = written(tmp_path, "[browsers]\nsilent_seconds = 60\nmax_age_seconds = 900.5\n")
    browsers = settings(config=config).browsers
    assert (browsers.silent_seconds, browsers.max_percent, browsers.max_age_seconds) == (60, 75, 900.5)


def test_another_pool_implementation_and_further_options_are_taken(tmp_path: Path) -> None:
    text = '[pools.fast]\nimplementation = "threads"\ncelery_options = ["-E", "--time-limit=300"]\n'
    (pool,) = settings(config=written(tmp_path, text)).pools
    assert (pool.implementation, pool.forks) == ("threads", False)
    assert worker_command(settings(), pool, "fast")[-2:] == ["-E", "--time-limit=300"]


@pytest.mark.parametrize("option", ["-c4", "-c", "--autoscale=4,1", "-Qlow", "--pool=solo", "--detach"])
def test_an_option_that_the_supervisor_sets_itself_is_refused_with_what_to_set_instead(
    tmp_path: Path, option: str
) -> None:
    config = written(tmp_path, f'[pools.fast]\ncelery_options = ["-E", "{option}"]\n')
    with pytest.raises(BadConfiguration, match=r"it must be without -.*: set "):
        settings(config=config)


@pytest.mark.parametrize(
    ("environment", "text", "expected"),
    [
        ({}, "", {"fast": ("high", "default"), "slow": ("low",)}),
        ({"CELERY_WORKER_NAME": "slow"}, "", {"fast": ("high", "default"), "slow": ("low",)}),
        ({"CELERY_WORKER_NAME": "slow", "CELERY_QUEUES": "low,bulk"}, "",
         {"fast": ("high", "default"), "slow": ("low", "bulk")}),
        ({"CELERY_WORKER_NAME": "scrape", "CELERY_QUEUES": "web"}, "", {"scrape": ("web",)}),
        ({"CELERY_QUEUES": "web"}, "", {"worker": ("web",)}),
        ({}, "[pools.mail]\nqueues = ['mail']", {"mail": ("mail",)}),
        ({"CELERY_WORKER_NAME": "scrape", "CELERY_QUEUES": "web"}, "[pools.mail]\nqueues = ['mail']",
         {"mail": ("mail",), "scrape": ("web",)}),
    ],
)  # fmt: skip
def test_the_pools_of_all_containers_are_the_configured_ones_and_the_one_here(
    tmp_path: Path, environment: dict[str, str], text: str, expected: dict[str, tuple[str, ...]]
) -> None:
    line = CommandLine(config=written(tmp_path, text))
    _, pools = load_deployment(line, APP | environment)
    assert {pool.name: pool.queues for pool in pools} == expected


def test_a_variable_for_one_pool_is_told_as_it_was_given_where_several_would_run() -> None:
    with pytest.raises(BadConfiguration, match=r"CELERY_CONCURRENCY is '3' \(in the environment\)"):
        settings({"CELERY_CONCURRENCY": "3"})


def test_no_app_is_an_error_that_names_the_three_ways_to_give_one() -> None:
    with pytest.raises(BadConfiguration, match=r"CELERY_APP, --app, or `app`"):
        load_settings(CommandLine(), {})


def test_a_limit_for_tasks_is_refused_where_they_have_no_process_of_their_own(tmp_path: Path) -> None:
    config = tmp_path / "recyclery.toml"
    config.write_text('[pools.slow]\nimplementation = "threads"\nmax_task_bytes = "1GiB"\n')
    with pytest.raises(BadConfiguration, match=r"slow max_task_bytes is set .* is threads: only"):
        load_settings(CommandLine(config=str(config)), {"CELERY_APP": "app"})
    config.write_text('[pools.slow]\nimplementation = "solo"\n')
    running = load_settings(CommandLine(config=str(config)), {"CELERY_APP": "app"})
    with pytest.raises(BadConfiguration, match=r"slow max_task_bytes is set \(by set\)"):
        change_settings(running, "slow", {"max_task_bytes": "1GiB"})
    assert change_settings(running, "slow", {"max_task_bytes": "off"}) == running
