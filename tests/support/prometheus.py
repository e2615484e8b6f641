"""A real Prometheus for tests."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from support.ports import free_port
from support.waiting import wait_for

STOP_SECONDS = 20.0


class Prometheus:
    """Its HTTP API, as far as alerts go."""

    def __init__(self, port: int) -> None:
        self.port = port

    def is_ready(self) -> bool:
        """Tell whether it answers queries."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urlencode(parameters)}"
        with urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def has(self, expression: str) -> bool:
        """Tell whether an expression has a result now."""
        return bool(self.ask("query", query=expression)["result"])

    def fired(self) -> set[str]:
        """Return the names of the alerts that fired so far."""
        samples = self.ask("query", query='count_over_time(ALERTS{alertstate="firing"}[1h])')["result"]
        return {sample["metric"]["alertname"] for sample in samples}

    def active(self) -> set[str]:
        """Return the names of the alerts that stand."""
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"]}

    def rules(self) -> list[dict[str, Any]]:
        """Return the rules, as it judged them last."""
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]


def find_prometheus() -> str | None:
    """Find the program; None where it is not installed."""
    return shutil.which("prometheus")


@contextmanager
def prometheus(program: str, folder: Path, rules: dict[str, Any], target: int) -> Iterator[Prometheus]:
    """Run one that scrapes a loopback port, and judges the rules, each second, until the block ends."""
    (folder / "rules.yml").write_text(json.dumps(rules))
    every_second = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    scraped = {"job_name": "recyclery", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
    config = {"global": every_second, "rule_files": ["rules.yml"], "scrape_configs": [scraped]}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    options = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": f"127.0.0.1:{port}",
        "log.level": "warn",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [program, *(f"--{name}={value}" for name, value in options.items())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    server = Prometheus(port)
    try:
        wait_for(lambda: process.poll() is not None or server.is_ready(), "Prometheus is ready")
        assert process.poll() is None, (folder / "log").read_text()
        yield server
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
