"""Redis as people have it: behind TLS or a Sentinel, with a prefix, with priorities, with a restricted user."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import redis
from celery import Celery

from support.ports import free_port
from support.redis_server import find_redis_server, redis_server
from support.waiting import wait_for


@dataclass(frozen=True)
class Kind:
    """A broker: where workers find it, with which transport options; `plain_url` is without any of it."""

    url: str
    plain_url: str
    options: dict[str, Any] = field(default_factory=dict)

    def app(self) -> Celery:
        """Return an app whose broker it is."""
        app = Celery("kinds", broker=self.url)
        app.conf.broker_transport_options = dict(self.options)
        return app


@contextmanager
def behind_tls() -> Iterator[Kind]:
    """Run one that speaks TLS, with a certificate that signs itself."""
    with TemporaryDirectory(prefix="tls-") as folder:
        key, certificate = f"{folder}/key.pem", f"{folder}/certificate.pem"
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=redis"]
        make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
        try:
            subprocess.run(make, check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("no openssl here")
        port = free_port()
        files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate]
        try:
            with redis_server("--tls-port", str(port), *files, "--tls-auth-clients", "no") as plain:
                query = f"ssl_cert_reqs=required&ssl_ca_certs={certificate}"
                yield Kind(f"rediss://127.0.0.1:{port}/0?{query}", plain)
        except RuntimeError:
            pytest.skip("this redis-server has no TLS")


@contextmanager
def behind_sentinel() -> Iterator[Kind]:
    """Run one that is found by asking a Sentinel."""
    with redis_server() as plain, sentinel_of(plain) as port:
        yield Kind(f"sentinel://127.0.0.1:{port}/0", plain, {"master_name": "main"})


@contextmanager
def with_replica() -> Iterator[tuple[Kind, Kind]]:
    """Run one behind a Sentinel, and a second that takes its place when it is gone."""
    with (
        redis_server() as plain,
        sentinel_of(plain) as port,
        redis_server("--replicaof", "127.0.0.1", port_of(plain)) as second,
    ):
        with redis.Redis(port=port) as sentinel:
            wait_for(lambda: sentinel.execute_command("SENTINEL", "REPLICAS", "main"), "it is known of")
        url, options = f"sentinel://127.0.0.1:{port}/0", {"master_name": "main"}
        yield Kind(url, plain, options), Kind(url, second, options)


@contextmanager
def sentinel_of(plain: str) -> Iterator[int]:
    """Run a Sentinel that watches a Redis, and soon gives its place to another; give its port."""
    with TemporaryDirectory(prefix="sentinel-") as folder:
        port = free_port()
        configuration = Path(folder, "sentinel.conf")
        configuration.write_text(
            f"port {port}\nsentinel monitor main 127.0.0.1 {port_of(plain)} 1\n"
            "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n"
        )
        sentinel = subprocess.Popen(
            [str(find_redis_server()), str(configuration), "--sentinel"], stdout=subprocess.DEVNULL, cwd=folder
        )
        try:
            wait_for(lambda: answers(port), "the Sentinel")
            yield port
        finally:
            sentinel.terminate()
            sentinel.wait()


def port_of(plain: str) -> str:
    """Return the port in a server's URL."""
    return plain.rpartition(":")[2].removesuffix("/0")


@contextmanager
def with_prefix() -> Iterator[Kind]:
    """Run one that several applications share by a prefix."""
    with redis_server() as plain:
        yield Kind(plain, plain, {"global_keyprefix": "mine:"})


@contextmanager
def with_priorities() -> Iterator[Kind]:
    """Run one whose queues have steps of priority, in an order of its user's."""
    with redis_server() as plain:
        steps = {"priority_steps": [0, 4, 8], "queue_order_strategy": "priority", "sep": ":"}
        yield Kind(plain, plain, steps)


@contextmanager
def with_user(*rules: str) -> Iterator[Kind]:
    """Run one whose user may do just what the rules say."""
    with redis_server() as plain:
        with redis.Redis.from_url(plain) as client:
            client.execute_command("ACL", "SETUSER", "worker", "on", ">secret", *rules)
        yield Kind(plain.replace("redis://", "redis://worker:secret@"), plain)


def answers(port: int) -> bool:
    """Tell whether a Redis, or a Sentinel, answers there."""
    try:
        with redis.Redis(port=port) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False
