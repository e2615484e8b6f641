"""conf/prometheus/alerts.yml, by promtool: each rule fires when it should, not before, and it recovers."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

RULES = Path(__file__).parents[2] / "conf" / "prometheus" / "alerts.yml"


@dataclass(frozen=True)
class Course:
    """One rule over some series, a sample and a look a minute; minutes are counted from 0.

    In promtool's notation 1x4 is a 1 and four more of it, and _x4 four minutes without a sample. The series of
    the instance or pool `other` come near to the bound and stay within it.
    """

    rule: str
    series: dict[str, str]
    fires_at: int
    over_at: int
    labels: dict[str, str]
    summary: str


COURSES = (
    Course(
        "RecycleryAway",
        {'recyclery_build_info{instance="box",version="1"}': "1x4 stale _x8 1x10"},
        fires_at=7,
        over_at=14,
        labels={},
        summary="No supervisor is scraped",
    ),
    Course(
        "RecycleryPoolDown",
        {
            'recyclery_pool_up{instance="box",pool="slow"}': "1x4 0x4 1x10",
            'recyclery_pool_up{instance="box",pool="other"}': "1x4 0 1x14",
        },
        fires_at=6,
        over_at=10,
        labels={"instance": "box", "pool": "slow"},
        summary="slow on box takes no tasks",
    ),
    Course(
        "RecycleryQueueDeep",
        {
            'recyclery_pool_queue_depth{instance="box",pool="slow"}': "9x4 12x4 9x10",
            'recyclery_pool_queue_depth{instance="box",pool="other"}': "9x19",
        },
        fires_at=6,
        over_at=10,
        labels={"instance": "box", "pool": "slow"},
        summary="12 tasks wait for slow",
    ),
    Course(
        "RecycleryTasksFail",
        {
            'recyclery_tasks_total{instance="box",pool="slow",outcome="succeeded"}': "0x14 7x20",
            'recyclery_tasks_total{instance="box",pool="slow",outcome="failed"}': "0x14 3x20",
            'recyclery_tasks_total{instance="box",pool="slow",outcome="retried"}': "0x14 90x20",
            'recyclery_tasks_total{instance="box",pool="other",outcome="succeeded"}': "0x14 96x20",
            'recyclery_tasks_total{instance="box",pool="other",outcome="failed"}': "0x14 4x20",
            'recyclery_tasks_total{instance="box",pool="idle",outcome="succeeded"}': "0x34",
            'recyclery_tasks_total{instance="box",pool="idle",outcome="failed"}': "0x14 2x20",
            'recyclery_tasks_total{instance="box",pool="idle",outcome="retried"}': "0x14 90x20",
        },
        fires_at=15,
        over_at=25,
        labels={"instance": "box", "pool": "slow"},
        summary="70% of the tasks of slow succeed",
    ),
    Course(
        "RecycleryHighQueueSlow",
        {
            'recyclery_task_seconds_bucket{instance="box",pool="fast",queue="high",le="10.0"}': "0x14 18x20",
            'recyclery_task_seconds_bucket{instance="box",pool="fast",queue="high",le="30.0"}': "0x14 20x20",
            'recyclery_task_seconds_count{instance="box",pool="fast",queue="high"}': "0x14 20x20",
            'recyclery_task_seconds_bucket{instance="other",pool="fast",queue="high",le="10.0"}': "0x14 96x20",
            'recyclery_task_seconds_count{instance="other",pool="fast",queue="high"}': "0x14 100x20",
            'recyclery_task_seconds_bucket{instance="box",pool="fast",queue="low",le="10.0"}': "0x34",
            'recyclery_task_seconds_count{instance="box",pool="fast",queue="low"}': "0x14 20x20",
        },
        fires_at=15,
        over_at=25,
        labels={"instance": "box", "queue": "high"},
        summary="10% of the tasks of the high queue took longer than 10 s",
    ),
    Course(
        "RecycleryDefaultQueueSlow",
        {
            'recyclery_task_seconds_bucket{instance="box",pool="a",queue="default",le="120.0"}': "0x14 17x20",
            'recyclery_task_seconds_bucket{instance="box",pool="a",queue="default",le="300.0"}': "0x14 18x20",
            'recyclery_task_seconds_count{instance="box",pool="a",queue="default"}': "0x14 20x20",
            'recyclery_task_seconds_bucket{instance="other",pool="a",queue="default",le="120.0"}': "0x34",
            'recyclery_task_seconds_bucket{instance="other",pool="a",queue="default",le="300.0"}': "0x14 96x20",
            'recyclery_task_seconds_count{instance="other",pool="a",queue="default"}': "0x14 100x20",
        },
        fires_at=15,
        over_at=25,
        labels={"instance": "box", "queue": "default"},
        summary="10% of the tasks of the default queue took longer than 5 min",
    ),
    Course(
        "RecycleryMemoryShort",
        {
            'recyclery_container_memory_floor_bytes{instance="box"}': "91x4 95x4 91x10",
            'recyclery_container_memory_limit_bytes{instance="box"}': "100x19",
            'recyclery_container_memory_floor_bytes{instance="other"}': "91x19",
            'recyclery_container_memory_limit_bytes{instance="other"}': "100x19",
        },
        fires_at=6,
        over_at=10,
        labels={"instance": "box"},
        summary="95% of the memory of box cannot be reclaimed",
    ),
    Course(
        "RecycleryOomKill",
        {
            'recyclery_oom_kills_total{instance="box"}': "2x14 3x20",
            'recyclery_oom_kills_total{instance="other"}': "2x34",
        },
        fires_at=15,
        over_at=25,
        labels={"instance": "box"},
        summary="The kernel killed processes for want of memory",
    ),
    Course(
        "RecycleryWorkerRestarts",
        # Of a counter that is not there for a whole window yet Prometheus makes an increase of 3.2.
        {
            'recyclery_pool_restarts_total{instance="box",pool="slow"}': "_x9 1x5 4x20",
            'recyclery_pool_restarts_total{instance="box",pool="other"}': "0x14 2x20",
        },
        fires_at=15,
        over_at=25,
        labels={"instance": "box", "pool": "slow"},
        summary="The worker of slow was started anew 3 times",
    ),
    Course(
        "RecycleryChildrenDie",
        {
            'recyclery_recycles_total{instance="box",pool="slow",reason="died"}': "_x9 1x5 4x20",
            'recyclery_recycles_total{instance="box",pool="other",reason="died"}': "0x14 2x20",
            'recyclery_recycles_total{instance="box",pool="slow",reason="budget"}': "0x14 90x20",
        },
        fires_at=15,
        over_at=25,
        labels={"instance": "box", "pool": "slow", "reason": "died"},
        summary="3 children of slow died",
    ),
    Course(
        "RecycleryPoolHolds",
        {
            'recyclery_pool_holding{instance="box",pool="slow"}': "0x4 1x8 0x10",
            'recyclery_pool_holding{instance="box",pool="other"}': "0x4 1x4 0x14",
        },
        fires_at=10,
        over_at=14,
        labels={"instance": "box", "pool": "slow"},
        summary="slow has taken no tasks for 5 minutes",
    ),
    Course(
        "RecycleryBrowsersLeft",
        {
            'recyclery_browsers{instance="box",kind="orphan"}': "0x4 1x4 0x10",
            'recyclery_browsers{instance="box",kind="leftover"}': "0x4 1 1 0x12",
            'recyclery_browsers{instance="box",kind="in_use"}': "3x19",
            'recyclery_browsers{instance="box",kind="kept"}': "3x19",
            'recyclery_browsers{instance="box",kind="stranger"}': "3x19",
        },
        fires_at=7,
        over_at=10,
        labels={"instance": "box", "kind": "orphan"},
        summary="1 browsers (orphan) are not reaped",
    ),
    Course(
        "RecycleryTasksParked",
        {
            'recyclery_tasks_parked{instance="box"}': "0x4 1x4 0x10",
            'recyclery_tasks_parked{instance="other"}': "0x19",
        },
        fires_at=5,
        over_at=10,
        labels={"instance": "box"},
        summary="1 tasks are parked",
    ),
    Course(
        "RecycleryGovernorLate",
        {
            'recyclery_governor_look_age_seconds{instance="box"}': "10x4 12x4 10x10",
            'recyclery_governor_look_age_seconds{instance="other"}': "10x19",
        },
        fires_at=6,
        over_at=10,
        labels={"instance": "box"},
        summary="The governor on box looks too seldom",
    ),
    Course(
        "RecycleryAlertsDropped",
        {
            'recyclery_alerts_dropped_total{instance="box"}': "2x14 3x20",
            'recyclery_alerts_dropped_total{instance="other"}': "2x34",
        },
        fires_at=15,
        over_at=25,
        labels={"instance": "box"},
        summary="The supervisor's own alerts do not arrive",
    ),
)


def read_rules() -> dict[str, dict[str, Any]]:
    """Return the rules by their names."""
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}


def write_checks(course: Course) -> dict[str, Any]:
    """Return what promtool is to check: it is silent, it fires, it still does, it is silent again.

    Its last minute is left out: a sample at the very beginning of a window counts in Prometheus 2, not in 3.
    """
    rule = read_rules()[course.rule]
    alert = {
        "exp_labels": {**course.labels, **rule["labels"]},
        "exp_annotations": {**rule["annotations"], "summary": course.summary},
    }
    expected = {
        course.fires_at - 1: [],
        course.fires_at: [alert],
        course.over_at - 2: [alert],
        course.over_at: [],
    }
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in course.series.items()],
        "alert_rule_test": [
            {"alertname": course.rule, "eval_time": f"{minute}m", "exp_alerts": alerts}
            for minute, alerts in expected.items()
        ],
    }


def test_every_rule_has_a_course() -> None:
    assert [course.rule for course in COURSES] == list(read_rules())


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("course", COURSES, ids=lambda course: course.rule)
def test_a_rule_fires_when_it_should_and_not_before_and_recovers(course: Course, tmp_path: Path) -> None:
    asked = tmp_path / "checks.yml"
    document = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [write_checks(course)]}
    asked.write_text(json.dumps(document))
    told = subprocess.run(
        ["promtool", "test", "rules", str(asked)], capture_output=True, text=True, timeout=60, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
