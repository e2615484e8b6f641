"""conf/prometheus/alerts.yml and conf/grafana/recyclery.json: they ask for what there is."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from recyclery.config.settings import Alerts
from recyclery.http.metrics import METRICS
from recyclery_worker.link import SECONDS_BOUNDS

CONF = Path(__file__).parents[2] / "conf"
RULES = CONF / "prometheus" / "alerts.yml"
BOARD = CONF / "grafana" / "recyclery.json"
NAME = re.compile(r"recyclery_\w+")
MATCHER = re.compile(r'\b(pool|queue|le|reason|outcome|kind|level|instance)=~?"([^"]*)"')
NAMES = {metric.name for metric in METRICS if metric.kind != "histogram"} | {
    f"{metric.name}{suffix}"
    for metric in METRICS
    if metric.kind == "histogram"
    for suffix in ("_bucket", "_sum", "_count")
}


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(BOARD.read_text(encoding="utf-8"))["panels"]
    return found


def expressions() -> list[str]:
    return [rule["expr"] for rule in rules()] + [
        target["expr"] for panel in panels() for target in panel["targets"]
    ]


def test_every_metric_that_a_rule_or_a_panel_asks_for_is_there() -> None:
    asked = {name for expression in expressions() for name in NAME.findall(expression)}
    asked |= set(NAME.findall(json.dumps(json.loads(BOARD.read_text())["templating"])))
    assert len(asked) > 15
    assert asked <= NAMES


def test_a_rules_bound_on_running_times_is_one_that_is_counted() -> None:
    bounds = {value for text in expressions() for label, value in MATCHER.findall(text) if label == "le"}
    assert bounds == {"10.0", "300.0"}
    assert bounds <= {str(bound) for bound in SECONDS_BOUNDS}


def test_every_rule_has_what_prometheus_wants_and_a_person_reads() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    for rule in rules():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["expr"].count("(") == rule["expr"].count(")")
        assert re.fullmatch(r"\d+m", rule.get("for", "1m"))


def test_the_rules_bounds_are_the_defaults_of_the_supervisors_own_alerts() -> None:
    asked = {rule["alert"]: rule["expr"] for rule in rules()}
    alerts = Alerts()
    assert f">= {alerts.queue_depth}" in asked["RecycleryQueueDeep"]
    assert f"< {alerts.success_percent / 100}" in asked["RecycleryTasksFail"]
    assert f">= {alerts.memory_percent / 100}" in asked["RecycleryMemoryShort"]
    assert f">= {alerts.restarts}" in asked["RecycleryWorkerRestarts"]
    assert f'le="{alerts.task_seconds["high"]}"' in asked["RecycleryHighQueueSlow"]
    assert f'le="{alerts.task_seconds["default"]}"' in asked["RecycleryDefaultQueueSlow"]


def test_the_dashboards_panels_have_numbers_and_places_of_their_own() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels()]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in panels()})


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_takes_the_rules() -> None:
    subprocess.run(["promtool", "check", "rules", str(RULES)], check=True, timeout=60)
