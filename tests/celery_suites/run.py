"""Runs one of Celery's own suites twice, with stock workers and with ours; the difference is the result.

What passes with stock workers and fails with ours is tried twice more. It is a finding where it fails each
time, and does not contradict what docs/guarantees.md promises.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from support.redis_server import redis_server

HERE = Path(__file__).parent
TRIES = 3
SIDES = ("stock", "ours")
# Why a test fails with our worker though nothing is wrong with it.
EXPECTED = {
    "test_Inspect::test_active": "a task is acknowledged when it is done: acknowledged is false while it runs",
    "test_Inspect::test_query_task": "the same",
    "test_chord_completes_when_reserved_member_is_revoked": "a worker holds no more tasks than it runs",
    "Method.SIGKILL-Worker": "a task whose process dies runs again, and is parked after the third time",
    "Method.SYSTEM_EXIT-Worker": "the same",
    "test_worker_consume_tasks_after_redis_broker_restart": "a worker tries Redis every second",
    "test_dead_worker_connections_are_closed": "a worker has one connection to RabbitMQ more",
}


@dataclass(frozen=True)
class Suite:
    """What pytest runs, the plugin that starts the workers, and what they need beside them."""

    plugin: str
    arguments: tuple[str, ...]


REDIS_FILES = (
    *("worker", "control", "tasks", "autoscale", "beat_remote_control", "consumer", "dedup_chain_dispatch"),
    *("disabled_backend", "gossip", "query_task", "revoke", "revoked_sync", "signals", "thread_safe"),
)
RABBITMQ_FILES = ("worker", "control", "tasks", "worker_heartbeats", "worker_shutdown_acks")


def smoke(files: Sequence[str], keep: str) -> Suite:
    """Return the smoke tests of these files, by what pytest's -k keeps of them."""
    paths = (f"t/smoke/tests/test_{name}.py" for name in files)
    return Suite(
        "celery_suites.local_docker", (*paths, "-k", f"{keep} and not pending_operation", "--timeout=200")
    )


SUITES = {
    "integration": Suite("celery_suites.real_worker", ("t/integration", "--timeout=120")),
    # What is left out needs gevent, or other images than a worker's.
    "smoke": smoke(REDIS_FILES, "not rabbitmq"),
    "smoke-rabbitmq": smoke(RABBITMQ_FILES, "not redis_broker"),
}


def main() -> int:
    """Run both sides and what differs again; return 1 where there is a finding."""
    parser = argparse.ArgumentParser(prog="scripts/test-celery", description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("source", type=Path, help="Celery's source distribution, unpacked")
    args, more = parser.parse_known_args()
    suite = SUITES[args.suite]
    outcomes = {side: run_side(suite, args.source, side, [*suite.arguments, *more]) for side in SIDES}
    for side in SIDES:
        print(side, dict(Counter(outcomes[side].values())), flush=True)
    failing = different = find_differences(outcomes["stock"], outcomes["ours"])
    for _ in range(TRIES - 1):
        if again := [name for name in failing if not reason(name)]:
            tried = run_side(suite, args.source, "ours", again)
            failing = [name for name in failing if reason(name) or tried.get(name) != "passed"]
    findings = [name for name in failing if not reason(name)]
    for name in different:
        why = reason(name) or (
            f"failed {TRIES} times of {TRIES}" if name in findings else "passed when run again"
        )
        print(f"{name}: {why}")
    print(f"{len(findings)} of {len(outcomes['stock'])} tests pass with stock workers only")
    return 1 if findings else 0


def find_differences(stock: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    """Return what passes with stock workers and not with ours."""
    return [name for name, outcome in stock.items() if outcome == "passed" and ours.get(name) != "passed"]


def reason(name: str) -> str:
    """Return why a test is expected to fail with ours; empty where it is not."""
    return next((why for part, why in EXPECTED.items() if part in name), "")


def run_side(suite: Suite, source: Path, side: str, arguments: Sequence[str]) -> dict[str, str]:
    """Return the outcome of each test, by its node id."""
    with redis_server() as url, tempfile.TemporaryDirectory(prefix="rcy-") as folder:
        report = Path(folder) / "report.xml"
        host, port = url.removeprefix("redis://").removesuffix("/0").split(":")
        ours = [str(HERE / "bin")] if side == "ours" else []
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([*ours, str(Path(sys.executable).parent), os.environ["PATH"]]),
            # Not from the working directory: there is Celery's source.
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(source)]),
            "TEST_BROKER": url,
            "TEST_BACKEND": url,
            "REDIS_HOST": host,
            "REDIS_PORT": port,
            "TMPDIR": folder,
        }
        # A test that fails is tried again here, and not at once.
        options = ["-p", suite.plugin, "-p", "no:rerunfailures", "-p", "no:cacheprovider", "-q", "-rfE"]
        options += ["--continue-on-collection-errors", f"--junitxml={report}", "-o", "junit_family=xunit1"]
        command = [sys.executable, "-m", "pytest", *options, *arguments]
        subprocess.run(command, cwd=source, env=environment, check=False)
        return read_report(report)


def read_report(report: Path) -> dict[str, str]:
    """Return the outcomes that pytest has written down."""
    outcomes: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        file = case.get("file", "")
        inner = case.get("classname", "").removeprefix(file.removesuffix(".py").replace("/", "."))
        name = "::".join([file, *filter(None, inner.split(".")), case.get("name", "")])
        bad = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        outcomes[name] = bad if outcomes.get(name, "passed") == "passed" else outcomes[name]
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
