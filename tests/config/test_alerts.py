"""What alerts are sent and where: how that is said, and what is refused without telling a secret."""

from pathlib import Path

import pytest

from recyclery.config.fields import BadConfiguration
from recyclery.config.secrets import PAGERDUTY_URL, read_webhook
from recyclery.config.settings import Alerts, change_settings
from recyclery.config.sources import CommandLine, load_settings
from recyclery.pid1.supervisord_conf import write_configuration

APP = {"CELERY_APP": "app"}


def alerts(tmp_path: Path, text: str, **environment: str) -> Alerts:
    (tmp_path / "r.toml").write_text(text)
    return load_settings(CommandLine(config=str(tmp_path / "r.toml")), APP | environment).alerts


def test_the_file_says_what_is_too_much(tmp_path: Path) -> None:
    read = alerts(tmp_path, '[alerts]\nformat = "slack"\nqueue_depth = 5\ntask_seconds = { mail = 3 }\n')
    assert (read.format, read.queue_depth, read.task_seconds) == ("slack", 5, {"mail": 3.0})


def test_the_environment_may_name_the_form(tmp_path: Path) -> None:
    text = '[alerts]\nformat = "slack"\n'
    assert alerts(tmp_path, text, RECYCLERY_ALERT_FORMAT="json").format == "json"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('format = "mail"', ["[alerts] format", "'mail'", "json, slack, pagerduty"]),
        ("queue_depth = -1", ["[alerts] queue_depth", "from 0 to"]),
        ("success_percent = 101", ["[alerts] success_percent", "from 0 to 100"]),
        ("task_seconds = 3", ["[alerts] task_seconds", "a table of queues", "{ high = 10"]),
        ('task_seconds = { "a b" = 3 }', ["a table of queues"]),
        ("task_seconds = { a = -1 }", ["a table of queues"]),
        ("url = 'https://x'", ["[alerts] url", "is not a setting"]),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(BadConfiguration) as told:
        alerts(tmp_path, f"[alerts]\n{text}\n")
    assert [word for word in words if word not in str(told.value)] == []


@pytest.mark.parametrize(
    "url", ["s3cret", "ftp://s3cret", "file:///s3cret", "https://", "http://x:s3cret/", "https://s3cret/a b"]
)
def test_an_address_that_is_none_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(BadConfiguration) as told:
        load_settings(CommandLine(), APP | {"RECYCLERY_ALERT_URL": url})
    assert "RECYCLERY_ALERT_URL" in str(told.value)
    assert "s3cret" not in str(told.value)


def test_pagerduty_needs_its_key_and_knows_its_address() -> None:
    assert read_webhook({}, "pagerduty") is None
    found = read_webhook({"RECYCLERY_ALERT_KEY": "s3cret"}, "pagerduty")
    assert found is not None
    assert (found.url, found.key) == (PAGERDUTY_URL, "s3cret")
    assert "s3cret" not in repr(found)
    with pytest.raises(BadConfiguration, match="RECYCLERY_ALERT_KEY is not: set it"):
        read_webhook({"RECYCLERY_ALERT_URL": "https://x"}, "pagerduty")


def test_bounds_are_changed_while_it_runs_and_the_form_is_not() -> None:
    settings = load_settings(CommandLine(), APP)
    assert change_settings(settings, "alerts", {"queue_depth": "3"}).alerts.queue_depth == 3
    assert change_settings(settings, "alerts", {"task_seconds": "{ low = 9 }"}).alerts.task_seconds == {
        "low": 9
    }
    with pytest.raises(BadConfiguration, match="next start"):
        change_settings(settings, "alerts", {"format": "slack"})


def test_the_pools_do_not_inherit_the_secrets(tmp_path: Path) -> None:
    settings = load_settings(CommandLine(), APP | {"RECYCLERY_RUNTIME_DIR": str(tmp_path)})
    lines = write_configuration(settings).read_text().splitlines()
    pools = [line for line in lines if line.startswith("environment=RECYCLERY_POOL=")]
    assert len(pools) == 4
    for name in ("RECYCLERY_HTTP_TOKEN", "RECYCLERY_ALERT_URL", "RECYCLERY_ALERT_KEY"):
        assert all(f'{name}=""' in line for line in pools)
