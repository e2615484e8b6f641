"""Every alert beside a real supervisor: what it is told for is brought about, and ended, and both are told.

By the supervisor itself, and by a real Prometheus where there is one. That the rules fire with the waits and
bounds that they have in the file, and not sooner, is in tests/deploy/test_alerts_fire.py.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from celery import Celery
from prometheus_client.parser import text_string_to_metric_families

from recyclery.alerts.rules import ALERT_KINDS
from recyclery_demo.cage import make_cgroup
from support.parked import run_parked
from support.ports import free_port
from support.prometheus import Prometheus, find_prometheus, prometheus
from support.receiver import Receiver, receiving
from support.redis_server import empty
from support.scraping import scrape
from support.sending import sending_to
from support.supervised import Supervised, supervised
from support.waiting import wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.cgroup, pytest.mark.timeout(280)]

RULES = Path(__file__).parents[2] / "conf" / "prometheus" / "alerts.yml"
Topic = tuple[str, str]
Told = Callable[[Topic], bool]
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
[memory]
# Memory that runs out is left to the kernel: on a busy machine the governor would be there before it.
hard_percent = 100
[pools.slow]
queues = ["high", "default", "low"]
concurrency = 1
max_tasks_per_child = 1000
max_task_deaths = 1
reap_leftover_browsers = false
"""
# What a rule's expression has, and what it is to have to suit CONFIG.
SHORTENED = {
    "RecycleryQueueDeep": (">= 10", ">= 4"),
    "RecycleryHighQueueSlow": ('le="10.0"', 'le="0.5"'),
    "RecycleryDefaultQueueSlow": ('le="300.0"', 'le="0.5"'),
    "RecycleryMemoryShort": (">= 0.92", ">= 0.6"),
    "RecycleryWorkerRestarts": (">= 3", ">= 1"),
    "RecycleryChildrenDie": (">= 3", ">= 1"),
    # It waits for 5 s for a PID 1 that stands still.
    "RecycleryGovernorLate": ("> 10", "> 3"),
}
RULE_OF: dict[Topic, str] = {
    ("pool_down", "slow"): "RecycleryPoolDown",
    ("queue_depth", "slow"): "RecycleryQueueDeep",
    ("task_failures", "slow"): "RecycleryTasksFail",
    ("slow_tasks", "high"): "RecycleryHighQueueSlow",
    ("slow_tasks", "default"): "RecycleryDefaultQueueSlow",
    ("memory", ""): "RecycleryMemoryShort",
    ("oom_kills", ""): "RecycleryOomKill",
    ("restarts", "slow"): "RecycleryWorkerRestarts",
    ("parked", ""): "RecycleryTasksParked",
}
# Held by a program that is no pool's: past the level *high*, and less than the limit.
STRANGERS_LEVEL = 0.93
WINDOW = re.compile(r"\[(.+?)\]")
SELECTOR = re.compile(r"(recyclery_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~?)"([^"]*)"')
GROUPING = re.compile(r"\bby \(([^)]*)\)")
# Prometheus adds it to whatever it scrapes.
ADDED = "instance"


@dataclass(frozen=True)
class Story:
    """What was told when all was over: by the supervisor, by /metrics, and by Prometheus if there was one."""

    bodies: list[dict[str, Any]]
    samples: list[Any]
    fired: set[str]
    rules: list[dict[str, Any]]


@pytest.fixture(scope="module")
def cage() -> Iterator[tuple[str, ...]]:
    """A command that runs what follows it in a memory cgroup."""
    cgroup = make_cgroup(LIMIT_BYTES)
    yield "/bin/sh", "-c", f'echo $$ > {cgroup.path}/cgroup.procs; exec "$@"', "sh"
    cgroup.remove()


@pytest.fixture(scope="module")
def story(redis_url: str, cage: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Bring about all of it, one after the other, and wait until all is over."""
    empty(redis_url)
    folder = tmp_path_factory.mktemp("alerts")
    port = free_port()
    config = folder / "recyclery.toml"
    config.write_text(CONFIG.format(http=f"127.0.0.1:{port}"))
    # The first message is refused for good, and so dropped.
    with receiving(403) as receiver, sending_to(redis_url) as sender, watching(folder, port) as server:
        environment = {"RECYCLERY_ALERT_URL": receiver.url}
        with supervised(
            "--config", str(config), redis_url=redis_url, environment=environment, wrapper=cage
        ) as running:
            running.wait_until_ready("slow")
            told = {"the supervisor": partial(was_told, receiver)}
            if server is not None:
                wait_for(partial(server.has, "recyclery_task_seconds_count == 0"), "Prometheus looks at it")
                told["Prometheus"] = partial(has_fired_for, server)
            tasks = overload(sender, told, folder / "gate")
            wait_for(lambda: ended_tasks(port) == tasks, "the governor knows what they took", 60)
            lose_worker(running, told)
            poison(sender, told, redis_url)
            bodies = wait_for(partial(bodies_once_over, receiver), "all is told to be over", 60)
            fired: set[str] = set()
            if server is not None:
                delay_looks(running, server)
                leave_browser(sender, server, folder)
                run_short(running, server, cage)
                fired = wait_for(partial(fired_once_over, server), "all is over to Prometheus", 60)
            status, text = scrape(port)
            assert status == 200
            seen = Story(
                bodies=bodies,
                samples=[one for family in text_string_to_metric_families(text) for one in family.samples],
                fired=fired,
                rules=server.rules() if server else [],
            )
            assert running.stop() == 0
            return seen


@contextmanager
def watching(folder: Path, port: int) -> Iterator[Prometheus | None]:
    """Run a Prometheus that already misses the supervisor at a port; None where it is not installed."""
    program = find_prometheus()
    if program is None:
        yield None
        return
    with prometheus(program, folder, shorten(read_rules()), port) as server:
        wait_for(lambda: "RecycleryAway" in server.fired(), "Prometheus misses the supervisor")
        yield server


def read_rules() -> dict[str, Any]:
    """Return the rules' file."""
    document: dict[str, Any] = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return document


def rules_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rules of a file."""
    return [rule for group in document["groups"] for rule in group["rules"]]


def shorten(document: dict[str, Any]) -> dict[str, Any]:
    """Return the rules with CONFIG's bounds and window, and without their waits."""
    short = deepcopy(document)
    assert SHORTENED.keys() <= {rule["alert"] for rule in rules_of(short)}
    for rule in rules_of(short):
        rule.pop("for", None)
        rule["expr"] = rule["expr"].replace("[10m]", "[20s]")
        assert {*WINDOW.findall(rule["expr"])} <= {"20s"}
        if rule["alert"] in SHORTENED:
            usual, suited = SHORTENED[rule["alert"]]
            assert rule["expr"].count(usual) == 1
            rule["expr"] = rule["expr"].replace(usual, suited)
    return short


def states(receiver: Receiver, topic: Topic) -> list[str]:
    """Return what was told of one alert, in order."""
    bodies = list(receiver.bodies)
    return [body["state"] for body in bodies if (body["alert"], body["subject"]) == topic]


def was_told(receiver: Receiver, topic: Topic) -> bool:
    """Tell whether the supervisor told of it."""
    return "firing" in states(receiver, topic)


def has_fired_for(server: Prometheus, topic: Topic) -> bool:
    """Tell whether the rule for it fired."""
    return RULE_OF[topic] in server.fired()


def wait_until_told(told: Mapping[str, Told], *topics: Topic) -> None:
    """Wait until each of these was told by all who tell."""
    for topic in topics:
        for name, has_told in told.items():
            wait_for(partial(has_told, topic), f"{name} tells of {topic}", 60)


def bodies_once_over(receiver: Receiver) -> list[dict[str, Any]] | None:
    """Return what was told, once of everything the last word is that it is over."""
    bodies = list(receiver.bodies)
    last = {(body["alert"], body["subject"]): body["state"] for body in bodies}
    return bodies if {*last.values()} == {"resolved"} else None


def fired_once_over(server: Prometheus) -> set[str] | None:
    """Return which rules fired, once none stands any more."""
    return None if server.active() else server.fired()


def ended_tasks(port: int) -> int:
    """Return how many tasks the governor has seen end."""
    _, text = scrape(port)
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return round(sum(sample.value for sample in samples if sample.name == "recyclery_tasks_total"))


def overload(sender: Celery, told: Mapping[str, Told], gate: Path) -> int:
    """Fail tasks, have some take long, take memory, and let tasks wait behind that; then let go of all.

    Returns how many tasks that were.
    """
    first = [
        *(("sample_app.add", (letter, 1), "low") for letter in "abc"),
        *(("sample_app.nap", (0.6,), queue) for queue in ("high", "default") * 3),
    ]
    send_all(sender, first)
    # Else the next may be taken before the last of these: a worker takes from its queues in turn.
    wait_until_told(told, ("task_failures", "slow"), ("slow_tasks", "high"), ("slow_tasks", "default"))
    behind = [
        ("sample_app.hold_memory", (HELD_BYTES, str(gate)), "low"),
        *(("sample_app.add", (number, 1), "low") for number in range(12)),
    ]
    send_all(sender, behind)
    wait_until_told(told, ("queue_depth", "slow"), ("memory", ""))
    gate.touch()
    return len(first) + len(behind)


def send_all(sender: Celery, tasks: Iterable[tuple[str, tuple[object, ...], str]]) -> None:
    """Send tasks, each with its arguments to its queue."""
    for name, args, queue in tasks:
        sender.send_task(name, args, queue=queue)


def lose_worker(running: Supervised, told: Mapping[str, Told]) -> None:
    """Stop the worker's main process until it is missed, then kill it: another one is started."""
    main = int(running.status()["pools"]["slow"]["pid"])
    os.kill(main, signal.SIGSTOP)
    wait_until_told(told, ("pool_down", "slow"))
    os.kill(main, signal.SIGKILL)
    wait_until_told(told, ("restarts", "slow"))


def poison(sender: Celery, told: Mapping[str, Told], redis_url: str) -> None:
    """Have a task take memory until the kernel kills it, and drop it from where it is parked then."""
    sent = sender.send_task("sample_app.leave_memory", (4 << 30,), queue="low")
    wait_until_told(told, ("oom_kills", ""), ("parked", ""))
    assert run_parked(redis_url, "drop", sent.id).returncode == 0


def delay_looks(running: Supervised, server: Prometheus) -> None:
    """Have PID 1 stand still until the governor, which asks it before each look, is late."""
    running.process.send_signal(signal.SIGSTOP)
    try:
        wait_for(lambda: "RecycleryGovernorLate" in server.fired(), "the governor is late")
    finally:
        running.process.send_signal(signal.SIGCONT)


def leave_browser(sender: Celery, server: Prometheus, folder: Path) -> None:
    """Have a task leave what looks like a browser, and end that when it was missed."""
    program = folder / "chromium"
    shutil.copy("/bin/sleep", program)
    _, left = sender.send_task("sample_app.leave_process", (str(program),), queue="low").get(timeout=60)
    wait_for(lambda: "RecycleryBrowsersLeft" in server.fired(), "the browser is missed")
    os.kill(left, signal.SIGKILL)


def run_short(running: Supervised, server: Prometheus, cage: tuple[str, ...]) -> None:
    """Have a stranger hold memory in the container until the pool is held, and then let go of it."""
    size = round(STRANGERS_LEVEL * LIMIT_BYTES) - running.status()["container"]["floor_bytes"]
    hold = [*cage, sys.executable, "-c", f"held = b'x' * {size}; input()"]
    with subprocess.Popen(hold, stdin=subprocess.PIPE):
        wait_for(lambda: "RecycleryPoolHolds" in server.fired(), "the pool is held")


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


def test_every_alert_is_told_and_told_to_be_over(story: Story) -> None:
    told = [(body["alert"], body["state"]) for body in story.bodies]
    assert {*told} == {(kind, state) for kind in ALERT_KINDS for state in ("firing", "resolved")}


def test_every_rule_finds_what_it_asks_for(story: Story) -> None:
    rules = rules_of(read_rules())
    assert len(rules) > 10
    lacking = {rule["alert"]: missing(rule["expr"], story.samples) for rule in rules}
    assert {name: names for name, names in lacking.items() if names} == {}


@pytest.mark.skipif(find_prometheus() is None, reason="prometheus is not installed")
def test_a_real_prometheus_fires_every_rule_until_it_is_over(story: Story) -> None:
    assert story.fired == {rule["alert"] for rule in rules_of(read_rules())}


@pytest.mark.skipif(find_prometheus() is None, reason="prometheus is not installed")
def test_a_real_prometheus_judges_every_rule_without_an_error(story: Story) -> None:
    judged = {rule["name"]: (rule["health"], rule.get("lastError", "")) for rule in story.rules}
    assert judged == {rule["alert"]: ("ok", "") for rule in rules_of(read_rules())}
