"""Metrics and alerts beside a real worker: what its tasks become is counted, told, and told to be over."""

from pathlib import Path
from typing import Any

from celery import Celery
from prometheus_client.parser import text_string_to_metric_families

from support.ports import free_port
from support.receiver import receiving
from support.scraping import scrape
from support.supervised import supervised
from support.waiting import wait_for

TOKEN = "a-token-of-its-own"
CONFIG = """
http = "{http}"
[alerts]
queue_depth = 2
lasting_seconds = 0
window_seconds = 600
[pools.slow]
concurrency = 1
max_tasks_per_child = 1000
"""


def figures(port: int) -> dict[str, float]:
    """Return the slow pool's samples by name and the label that is not the pool's."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(scrape(port, TOKEN)[1]):
        for sample in family.samples:
            rest = [value for key, value in sorted(sample.labels.items()) if key != "pool"]
            found[" ".join([sample.name, *rest])] = sample.value
    return found


def test_what_becomes_of_tasks_is_counted_and_a_queue_that_is_too_deep_is_told_until_it_is_not(
    fresh_redis: str, sender: Celery, tmp_path: Path
) -> None:
    port = free_port()
    config = tmp_path / "recyclery.toml"
    config.write_text(CONFIG.format(http=f"0.0.0.0:{port}"))
    gate = tmp_path / "gate"
    with receiving() as receiver:
        environment = {"RECYCLERY_HTTP_TOKEN": TOKEN, "RECYCLERY_ALERT_URL": receiver.url}
        with supervised("--config", str(config), redis_url=fresh_redis, environment=environment) as running:

            def told(alert: str) -> list[dict[str, Any]]:
                return [body for body in list(receiver.bodies) if body["alert"] == alert]

            running.wait_until_ready("slow")
            wait_for(lambda: scrape(port, TOKEN)[0] == 200, "metrics")
            assert [scrape(port, "wrong")[0], scrape(port, "")[0]] == [401, 401]
            for arguments in ((1, 2), ("a", 1), ("b", 1), ("c", 1)):
                sender.send_task("sample_app.add", arguments, queue="low")
            for _ in range(12):
                sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
            wait_for(lambda: figures(port).get("recyclery_tasks_total failed") == 3, "failures are counted")
            assert figures(port)["recyclery_tasks_total succeeded"] == 1
            assert figures(port)["recyclery_task_seconds_count low"] == 4
            wait_for(lambda: told("queue_depth"), "an alert")
            assert figures(port)["recyclery_alerts_firing queue_depth"] == 1
            # The alert may come from the broker's word, while the worker's own is a moment older.
            wait_for(lambda: figures(port)["recyclery_pool_queue_depth"] >= 2, "the depth")
            gate.touch()
            wait_for(lambda: len(told("queue_depth")) == 2, "it is well again")
            assert [body["state"] for body in told("queue_depth")] == ["firing", "resolved"]
            assert [body["state"] for body in told("task_failures")] == ["firing"]
            texts = [path.read_text() for path in running.runtime_dir.glob("*") if path.is_file()]
            assert running.stop() == 0
            texts.append(running.output)
            assert not any(secret in text for secret in (TOKEN, "a-secret") for text in texts)
