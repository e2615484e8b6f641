"""Contracts of a running supervisor: Redis, files, HTTP, control socket, supervisorctl and log.

It has parked a task, runs another one, and its worker has been killed once.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from contracts import product
from contracts.frozen import assert_frozen, frozen, shape, widen
from contracts.sources import strings
from support.parked import run_parked
from support.ports import free_port
from support.redis_server import empty
from support.sending import sending_to
from support.supervised import Supervised, supervised
from support.waiting import wait_for

NAMES = {
    r"^(recyclery:)[0-9a-f]{16}(:)": r"\1ID\2",
    r"^(recyclery:deaths:)[0-9a-f-]{36}$": r"\1TASK-ID",
    r"^(recyclery:tune:)[0-9a-f]{12}:.*": r"\1NAME:*",
}


@dataclass
class Ran:
    """The running supervisor, and what was collected on the way."""

    running: Supervised
    port: int
    keys: list[str]
    alerts: Any
    parked: Any
    dropped: Any
    supervisorctl: list[str]


def list_keys(client: Any, pattern: str) -> list[str]:
    """Return the matching keys, without those of the self-test that a worker does at its start."""
    names = sorted(key.decode() for key in client.scan_iter(pattern))
    return [name for name in names if "rehearsal" not in name]


def describe_keys(client: Any, pattern: str) -> Iterator[str]:
    """Yield the matching keys with their types and the fields of the JSON in them."""
    for name in list_keys(client, pattern):
        plain = name
        for own, words in NAMES.items():
            plain = re.sub(own, words, plain)
        kind = client.type(name).decode()
        yield f"{plain} is a {kind}"
        # kombu writes the messages.
        if kind == "hash" and not plain.endswith(":unacked"):
            entries = [json.loads(entry) for entry in client.hvals(name)]
            yield from (f"{plain} -> {line}" for line in shape(*entries) if not line.startswith("message."))


@pytest.fixture(scope="module")
def ran(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """A supervisor after a parked task and a killed worker."""
    empty(redis_url)
    folder, port = tmp_path_factory.mktemp("ran"), free_port()
    environment = {"RECYCLERY_ALERT_URL": "http://127.0.0.1:1/", "RECYCLERY_HTTP": f"127.0.0.1:{port}"}
    started = supervised("--pool", "slow", redis_url=redis_url, environment=environment)
    with started as running, sending_to(redis_url) as sender, Redis.from_url(redis_url) as client:
        running.wait_until_ready("slow")
        running.wait_for_line("watching slow")
        ask(running, command="set", table="slow", values={"max_task_deaths": "1"})
        sender.send_task("sample_app.die", (str(folder / "deaths"), 9), queue="low")
        running.wait_for_line("parked sample_app.die")
        ask(running, command="set", table="slow", values={"max_task_deaths": "3"})
        marks, gate = folder / "runs", folder / "gate"
        sender.send_task("sample_app.run_until", (str(marks), str(gate)), queue="low")
        wait_for(lambda: list_keys(client, "recyclery:*:started"), "the running task is recorded")
        product.begin_tuning(redis_url)
        keys = [*describe_keys(client, "recyclery:*")]
        alerts = wait_for(lambda: read_json(running.runtime_dir / "alerts.json"), "an alert fires")
        os.kill(running.status()["pools"]["slow"]["pid"], signal.SIGKILL)
        wait_for(
            lambda: list_keys(client, "recyclery:*:reclaimed"), "the messages of the worker are given back"
        )
        keys += describe_keys(client, "recyclery:*:reclaimed")
        wait_for(lambda: marks.read_text() == "xx", "the task runs again")
        gate.touch()
        wait_for((running.runtime_dir / "state" / "models.json").exists, "the models are stored")
        parked = json.loads(run_parked(redis_url, "list", "--json").stdout)
        dropped = json.loads(run_parked(redis_url, "drop", "--all", "--json").stdout)
        yield Ran(running, port, keys, alerts, parked, dropped, list_programs(running))


def read_json(path: Path) -> Any:
    """Return a JSON file; None while it is missing or incomplete."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def list_programs(running: Supervised) -> list[str]:
    """Return the output of `supervisorctl status`."""
    configuration = running.runtime_dir / "supervisord.conf"
    command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(configuration), "status"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


def ask(running: Supervised, **request: Any) -> Any:
    """Send a request to the control socket; return the answer."""
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(30)
        control.connect(str(running.runtime_dir / "control.sock"))
        control.sendall(json.dumps(request).encode() + b"\n")
        with control.makefile("rb") as answer:
            return json.loads(answer.readline())


def test_redis_has_the_frozen_keys_and_values(ran: Ran) -> None:
    known = [f"{name} is known" for name in product.redis_keys()]
    assert_frozen("redis_keys", widen("redis_keys", [*known, *ran.keys]))


def test_the_code_names_only_frozen_redis_keys() -> None:
    keys = [re.fullmatch(r"(?:\{\})?(recyclery:[\w:{}-]+?):?", text) for text in strings()]
    named = {found[1] for found in keys if found is not None}
    known = {line.split()[0] for line in frozen("redis_keys")}
    patterns = {name: re.escape(name).replace(r"\{\}", "[^:]+") + "(?::.*)?" for name in named}
    assert len(named) > 5
    assert [name for name in named if not any(re.fullmatch(patterns[name], key) for key in known)] == []


def test_a_running_supervisors_status_has_only_frozen_keys(ran: Ran) -> None:
    found = {line.partition(":")[0] for line in shape(ran.running.status(), maps=("pools", "pools.*.recycles"))}
    known = [line.removeprefix("status: ").partition(":")[0] for line in frozen("documents", "status: ")]
    # An empty list has a line of its own.
    assert [path for path in found if not any(re.split(r"\[]", path)[0] in name for name in known)] == []


def test_the_parked_document_has_the_frozen_keys_and_types(ran: Ran) -> None:
    lines = [line for line in shape(ran.parked) if not line.startswith("parked[].message.")]
    assert_frozen("documents", widen("documents", lines, "parked list: "), "parked list: ")
    assert_frozen("documents", shape(ran.dropped), "parked drop: ")


def test_the_control_socket_knows_the_frozen_commands(ran: Ran) -> None:
    known = ask(ran.running, command="no such command")["error"].partition("there are ")[2].split(", ")
    assert {*known} == {line.split()[0] for line in frozen("control_socket") if " -> " in line}


def test_the_runtime_and_state_folders_have_the_frozen_files(ran: Ran) -> None:
    runtime, state = ran.running.runtime_dir, ran.running.runtime_dir / "state"
    found = [f"runtime {path.name}" for path in runtime.iterdir() if path != state]
    found += [f"state {path.name}" for path in state.iterdir()]
    assert_frozen("folders", [name for name in sorted(found) if not name.endswith((".new", "-wal", "-shm"))])


def test_the_alerts_and_heartbeat_files_have_the_frozen_form(ran: Ran) -> None:
    assert ["parked", ""] in ran.alerts
    beat = json.loads((ran.running.runtime_dir / "heartbeat.json").read_text())
    assert (beat.keys(), beat["pools"].keys()) == ({"at", "pools"}, {"slow"})


def test_supervisorctl_lists_the_slots_of_the_pool_and_the_governor(ran: Ran) -> None:
    assert {line.split()[0] for line in ran.supervisorctl} == {"governor", "slow", "slow-b"}


def test_the_log_has_the_start_banner_of_the_worker(ran: Ran) -> None:
    first = ran.running.lines.index("🔨 Starting Celery Worker")
    assert ran.running.lines[first + 1 : first + 3] == ["ℹ  Processing queues: low", "ℹ  Worker name: slow"]
    assert any(line.startswith("slow | ") for line in ran.running.lines)


@pytest.mark.parametrize(("path", "text"), [("/livez", "alive\n"), ("/readyz", "ready\n")])
def test_the_probes_answer_with_the_frozen_text(ran: Ran, path: str, text: str) -> None:
    def probe() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{ran.port}{path}", timeout=10) as answer:
            return bool(answer.read().decode() == text)

    wait_for(lambda: not_refused(probe), f"{path} says {text!r}")


def not_refused(probe: Any) -> bool:
    """Return what a probe returns; False for an error, as while a worker starts."""
    try:
        return bool(probe())
    except OSError:
        return False


def test_a_running_supervisor_serves_only_frozen_metrics(ran: Ran) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{ran.port}/metrics", timeout=30) as answer:
        served = set(re.findall(r"^# TYPE (\w+) (\w+)", answer.read().decode(), re.M))
    known = {tuple(re.split(r"[ {]", line)[:2]) for line in frozen("metrics")}
    assert len(served) > 20
    assert {(kind, name) for name, kind in served} - known == set()
