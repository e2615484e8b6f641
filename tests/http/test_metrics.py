"""/metrics: what Prometheus reads of it, by the parser of its own Python client."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families

from recyclery.http.metrics import METRICS, Sample, format_family, render
from support.readings import readings
from support.snapshots import MIB, SETTINGS, slow_view, snapshot

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(
    r"^\| `(?P<name>recyclery_\w+)(?:\{(?P<labels>[\w,]+)\})?` \| (?P<kind>\w+) \| (?P<meaning>[^|]+) \|", re.M
)


def samples(text: str) -> dict[str, float]:
    """Return every sample by its name with its labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_every_metric_is_read_with_the_type_and_the_labels_it_is_said_to_have() -> None:
    told = {family.name: family for family in text_string_to_metric_families(render(readings()))}
    # The parser takes a counter's suffix away.
    assert {*told} == {
        metric.name.removesuffix("_total") for metric in METRICS if "pressure" not in metric.name
    }
    for metric in METRICS:
        family = told.get(metric.name.removesuffix("_total"))
        if family is not None:
            assert (family.type, family.documentation) == (metric.kind, metric.meaning)
            assert {key for sample in family.samples for key in sample.labels} - {"le"} == {*metric.labels}


@pytest.mark.parametrize(
    ("sample", "value"),
    [
        ("recyclery_container_memory_limit_bytes", 1000 * MIB),
        ("recyclery_container_memory_floor_bytes", 400 * MIB),
        ("recyclery_container_memory_unattributed_bytes", 140 * MIB),
        ("recyclery_container_memory_level_bytes{level=retire}", 800 * MIB),
        ("recyclery_oom_kills_total", 2),
        ("recyclery_pool_up{pool=slow}", 1),
        ("recyclery_pool_up{pool=fast}", 0),
        ("recyclery_pool_queue_depth{pool=slow}", 12),
        ("recyclery_pool_children{pool=slow}", 1),
        ("recyclery_pool_children_busy{pool=slow}", 1),
        ("recyclery_pool_memory_bytes{pool=slow}", 260 * MIB),
        ("recyclery_pool_browser_memory_bytes{pool=slow}", 200 * MIB),
        ("recyclery_pool_restarts_total{pool=slow}", 1),
        ("recyclery_recycles_total{pool=slow,reason=replace}", 1),
        ("recyclery_tasks_total{outcome=failed,pool=slow}", 2),
        ("recyclery_task_seconds_bucket{le=0.1,pool=slow,queue=low}", 7),
        ("recyclery_task_seconds_bucket{le=+Inf,pool=slow,queue=low}", 7),
        ("recyclery_task_seconds_count{pool=slow,queue=other}", 1),
        ("recyclery_tasks_parked", 1),
        ("recyclery_browsers{kind=leftover}", 1),
        ("recyclery_browsers_reaped_total", 4),
        ("recyclery_governor_look_age_seconds", 0.5),
        ("recyclery_alerts_firing{alert=queue_depth}", 1),
    ],
)
def test_a_metric_says_what_is(sample: str, value: float) -> None:
    assert samples(render(readings()))[sample] == value


def test_what_is_not_known_is_left_out_and_not_said_to_be_none() -> None:
    told = samples(render(readings()))
    assert "recyclery_pool_queue_depth{pool=fast}" not in told
    assert "recyclery_container_memory_pressure_ratio" not in told
    seen = snapshot()
    seen = replace(seen, container=replace(seen.container, pressure_percent=12.5))
    assert samples(render(readings(seen)))["recyclery_container_memory_pressure_ratio"] == 0.125


@pytest.mark.parametrize(
    "sample",
    [
        "recyclery_recycles_total{pool=fast,reason=died}",
        "recyclery_recycles_total{pool=slow,reason=died}",
        "recyclery_task_seconds_bucket{le=10.0,pool=slow,queue=heavy}",
        "recyclery_task_seconds_count{pool=slow,queue=heavy}",
    ],
)
def test_a_counter_is_told_before_it_has_counted_so_that_its_first_count_is_seen_to_rise(sample: str) -> None:
    pools = tuple(structs.replace(pool, queues=(*pool.queues, "heavy")) for pool in SETTINGS.pools)
    assert samples(render(readings(settings=structs.replace(SETTINGS, pools=pools))))[sample] == 0


def test_a_pool_whose_outcomes_are_not_known_has_no_running_times() -> None:
    assert not [name for name in samples(render(readings())) if "task_seconds" in name and "pool=fast" in name]


def test_a_worker_that_has_not_answered_yet_is_not_up() -> None:
    assert samples(render(readings(snapshot(pools=(slow_view(),)))))["recyclery_pool_up{pool=slow}"] == 0


def test_no_label_names_a_process_or_a_task() -> None:
    labels = {label for metric in METRICS for label in metric.labels}
    assert labels == {"version", "level", "pool", "reason", "outcome", "queue", "kind", "alert"}


def test_labels_of_any_text_are_read_back_as_they_were() -> None:
    text = 'a "quoted" \\ back\nslash'
    (family,) = text_string_to_metric_families(format_family("x", "gauge", text, [Sample(1, {"queue": text})]))
    assert (family.documentation, family.samples[0].labels) == (text, {"queue": text})


def test_the_docs_list_every_metric_as_it_is() -> None:
    listed = {
        (row["name"], row["kind"], tuple(filter(None, (row["labels"] or "").split(","))), row["meaning"])
        for row in ROW.finditer(DOCS.read_text(encoding="utf-8"))
    }
    assert listed == {(metric.name, metric.kind, metric.labels, metric.meaning) for metric in METRICS}
