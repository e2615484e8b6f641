"""Every alert beside a real supervisor: what it is told for is brought about, and ended, and both are told."""

import os
import re
import signal
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families

from recyclery.decide.alerts import KINDS
from recyclery.demo.cgroups import make_cgroup
from support.parked import run_parked
from support.ports import free_port
from support.receiver import Receiver, receiving
from support.scraping import scrape
from support.supervised import Supervised, supervised
from support.waiting import wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.cgroup, pytest.mark.timeout(280)]

RULES = Path(__file__).parents[2] / "conf" / "prometheus" / "alerts.yml"
Topic = tuple[str, str]
LIMIT_BYTES = 480 << 20
# Of what a supervisor and its one worker leave, this takes the memory past its bound, and not past a level.
HELD_BYTES = 230 << 20
CONFIG = """
http = "{http}"
[alerts]
queue_depth = 4
task_seconds = {{ high = 0.5, default = 0.5 }}
memory_percent = 60
restarts = 1
lasting_seconds = 0
window_seconds = 20
[pools.slow]
queues = ["high", "default", "low"]
concurrency = 1
max_tasks_per_child = 1000
max_task_deaths = 1
"""
SELECTOR = re.compile(r"(recyclery_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~?)"([^"]*)"')
GROUPING = re.compile(r"\bby \(([^)]*)\)")
# Prometheus adds it to whatever it scrapes.
ADDED = "instance"


@pytest.fixture
def cage() -> Iterator[tuple[str, ...]]:
    """A command that runs what follows it in a memory cgroup."""
    cgroup = make_cgroup(LIMIT_BYTES)
    yield "/bin/sh", "-c", f'echo $$ > {cgroup.path}/cgroup.procs; exec "$@"', "sh"
    cgroup.remove()


def states(receiver: Receiver, topic: Topic) -> list[str]:
    """Return what was told of one alert, in order."""
    bodies = list(receiver.bodies)
    return [body["state"] for body in bodies if (body["alert"], body["subject"]) == topic]


def wait_until_told(receiver: Receiver, *topics: Topic) -> None:
    """Wait until each of these was told."""
    told = partial(all_told, receiver, topics)
    wait_for(told, f"all of {', '.join(map(str, topics))} are told", 60)


def all_told(receiver: Receiver, topics: Iterable[Topic]) -> bool:
    """Tell whether each of these was told."""
    return all("firing" in states(receiver, topic) for topic in topics)


def all_over(receiver: Receiver) -> bool:
    """Tell whether of everything that was told the last word is that it is over."""
    topics = {(body["alert"], body["subject"]) for body in list(receiver.bodies)}
    return all(states(receiver, topic)[-1] == "resolved" for topic in topics)


def overload(sender: Celery, receiver: Receiver, gate: Path) -> None:
    """Fail tasks, have some take long, take memory, and let tasks wait behind that; then let go of all."""
    for letter in "abc":
        sender.send_task("sample_app.add", (letter, 1), queue="low")
    for queue in ("high", "default") * 3:
        sender.send_task("sample_app.nap", (0.6,), queue=queue)
    sender.send_task("sample_app.hold_memory", (HELD_BYTES, str(gate)), queue="low")
    for number in range(12):
        sender.send_task("sample_app.add", (number, 1), queue="low")
    wait_until_told(
        receiver,
        ("task_failures", "slow"),
        ("slow_tasks", "high"),
        ("slow_tasks", "default"),
        ("queue_depth", "slow"),
        ("memory", ""),
    )
    gate.touch()


def lose_worker(running: Supervised, receiver: Receiver) -> None:
    """Stop the worker's main process until it is missed, then kill it: another one is started."""
    main = int(running.status()["pools"]["slow"]["pid"])
    os.kill(main, signal.SIGSTOP)
    wait_until_told(receiver, ("pool_down", "slow"))
    os.kill(main, signal.SIGKILL)
    wait_until_told(receiver, ("restarts", "slow"))


def poison(sender: Celery, receiver: Receiver, redis_url: str) -> None:
    """Have a task take memory until the kernel kills it, and drop it from where it is parked then."""
    sent = sender.send_task("sample_app.leave_memory", (4 << 30,), queue="low")
    wait_until_told(receiver, ("oom_kills", ""), ("parked", ""))
    assert run_parked(redis_url, "drop", sent.id).returncode == 0


def missing(expression: str, samples: list[Any]) -> list[str]:
    """Return what a rule asks for and no sample has: a metric, a label, or a label's value."""
    lacking = []
    for name, matchers in SELECTOR.findall(expression):
        labels = [sample.labels for sample in samples if sample.name == name]
        for label, relation, value in MATCHER.findall(matchers):
            pattern = value if relation == "=~" else re.escape(value)
            labels = [found for found in labels if re.fullmatch(pattern, found.get(label, ""))]
        groups = {word.strip() for listed in GROUPING.findall(expression) for word in listed.split(",")}
        if not any(groups - {ADDED} <= found.keys() for found in labels):
            lacking.append(f"{name}{{{matchers}}}")
    return lacking


def test_every_alert_is_told_and_told_to_be_over_and_every_rule_finds_what_it_asks_for(
    fresh_redis: str, sender: Celery, tmp_path: Path, cage: tuple[str, ...]
) -> None:
    port = free_port()
    config = tmp_path / "recyclery.toml"
    config.write_text(CONFIG.format(http=f"127.0.0.1:{port}"))
    with receiving() as receiver:
        environment = {"RECYCLERY_ALERT_URL": receiver.url}
        with supervised(
            "--config", str(config), redis_url=fresh_redis, environment=environment, wrapper=cage
        ) as running:
            running.wait_until_ready("slow")
            overload(sender, receiver, tmp_path / "gate")
            lose_worker(running, receiver)
            poison(sender, receiver, fresh_redis)
            assert {body["alert"] for body in receiver.bodies} == set(KINDS)
            wait_for(partial(all_over, receiver), "all is told to be over", 60)
            status, text = scrape(port)
            assert status == 200
            assert running.stop() == 0
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert len(rules) > 10
    assert {
        rule["alert"]: missing(rule["expr"], samples) for rule in rules if missing(rule["expr"], samples)
    } == {}
