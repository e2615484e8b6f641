"""A pytest plugin: what pytest-celery's tests start in containers runs as processes of this machine.

Celery's source distribution lacks the Dockerfiles of its smoke tests. It is Celery's workers and this machine's
Redis and RabbitMQ alone, without limits, networks or file systems of their own.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import psutil
import pytest_docker_tools.wrappers.container

from support.ports import free_port
from support.rabbitmq_server import epmd_command, find_program, rabbitmq_variables
from support.redis_server import find_redis_server

AMQP, MANAGEMENT = "5672/tcp", "15672/tcp"
# By which a task knows that it has run in this container before.
MARKER = Path("/tmp/kill_child_process_once")
OURS = re.compile(rb"gave back (\d+) unfinished tasks?")
OURS_NAME = re.compile("^python.*")
# As long as an engine takes: of two signals at once a process gets only one.
KILL_SECONDS = 0.3
# As the kernel lists a socket that listens at a port.
LISTENS = " 0: 00000000:{:04X} 00000000:0000 0A\n"


class LocalContainer:
    """One process and its children, as docker-py shows a container."""

    def __init__(
        self, command: list[str], folder: Path, environment: dict[str, Any], network: str, ports: Iterable[str]
    ) -> None:
        self.id = uuid.uuid4().hex
        self.name = f"local-{self.id[:12]}"
        self._log = folder / f".{self.name}.log"
        self._folder, self._code = folder, 0
        self._ports = {name: free_port() for name in ports}
        self._port = next(iter(self._ports.values()), 0)
        self._beside: list[psutil.Popen] = []
        # pytest-docker-tools makes None of an empty word.
        command = [word or "" for word in command]
        if command[:1] == ["redis-server"]:
            options = [word for word in command[1:] if not word.startswith("/")]
            command = [str(find_redis_server()), "--port", str(self._port), "--dir", str(folder), *options]
        self._command = [word.replace("%h", self.id[:12]) for word in command]
        host, _, port = str(environment.get("REDIS_HOST", "")).partition(":")
        given = {name: str(value) for name, value in environment.items()}
        paths = os.pathsep.join((str(folder), os.environ["PYTHONPATH"]))
        self._environment = {**os.environ, **given, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
        if port:
            self._environment |= {"REDIS_HOST": host, "REDIS_PORT": port}
        if AMQP in self._ports:
            self._be_rabbitmq()
        self.attrs: dict[str, Any] = {
            "Config": {"Env": [], "Hostname": f"127.0.0.1:{self._port}" if self._ports else self.id[:12]},
            "HostConfig": {"PortBindings": {}},
            "NetworkSettings": {
                "Networks": {network: {"IPAddress": "127.0.0.1"}},
                "Ports": {
                    name: [{"HostIp": "127.0.0.1", "HostPort": port}] for name, port in self._ports.items()
                },
            },
            "State": {"ExitCode": 0},
        }
        self._start()

    def _be_rabbitmq(self) -> None:
        """Run a RabbitMQ, and the register of names that Erlang would else leave behind."""
        self._command, names = [find_program()], free_port()
        self._environment |= rabbitmq_variables(str(self._folder), self._ports[AMQP], names)
        self._environment["RABBITMQ_LOGS"] = "-"
        if MANAGEMENT in self._ports:
            (self._folder / "plugins").write_text("[rabbitmq_management].\n")
            (self._folder / "rabbitmq.conf").write_text(f"management.tcp.port = {self._ports[MANAGEMENT]}\n")
        self._beside = [psutil.Popen(epmd_command(names), env=self._environment)]

    def _start(self) -> None:
        with self._log.open("ab") as log:
            self._process = psutil.Popen(
                self._command, cwd=self._folder, env=self._environment, stdout=log, stderr=log
            )

    @property
    def status(self) -> str:
        code = self._process.poll()
        if code is None:
            return "running"
        self.attrs["State"]["ExitCode"] = code if code >= 0 else 128 - code
        return "exited"

    def reload(self) -> None:
        """Nothing here is ever old."""

    def logs(self, **_: Any) -> bytes:
        # What kombu says of it, and what we do: the tests go on from there, to see that it runs again.
        return OURS.sub(rb"Restoring \1 unacknowledged message(s)", self._log.read_bytes())

    def kill(self, signum: str | int | None = None) -> None:
        """Signal its first process; where that is killed, all others end with it."""
        number = (
            signal.SIGKILL if signum is None else signal.Signals[signum] if isinstance(signum, str) else signum
        )
        if number != signal.SIGKILL:
            self._process.send_signal(number)
            time.sleep(KILL_SECONDS)
            return
        processes = [self._process, *self._process.children(recursive=True)]
        for process in processes:
            # It may have ended by itself.
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes)

    def restart(self, timeout: float = 10) -> None:
        if self.status == "running":
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
                self.kill()
        self._start()

    def remove(self, **_: Any) -> None:
        if self.status == "running":
            self.kill()
        for process in self._beside:
            process.kill()
            process.wait()

    def wait(self, **_: Any) -> None:
        self._process.wait()

    def exec_run(self, command: str | list[str], **_: Any) -> tuple[int, bytes]:
        words = shlex.split(command) if isinstance(command, str) else list(command)
        if words[:2] == ["cat", "/proc/net/tcp"]:
            return 0, "".join(LISTENS.format(int(name.split("/")[0])) for name in self._ports).encode()
        if words[0] == "redis-cli":
            words = [str(find_redis_server().with_name("redis-cli")), "-p", str(self._port), *words[1:]]
        elif words[0] == "rabbitmqctl":
            words[0] = str(Path(find_program()).with_name(words[0]))
        options: dict[str, Any] = {"cwd": self._folder, "env": self._environment}
        done = subprocess.run(words, check=False, capture_output=True, **options)
        if "get_running_processes_info" in words[-1]:
            return done.returncode, self._only_own(done.stdout)
        return done.returncode, done.stdout + done.stderr

    def _only_own(self, processes: bytes) -> bytes:
        """Leave out of what pytest-celery has found what would not be in this container.

        It looks for Celery's name, which is that of a stock worker's script; ours is started as a module.
        """
        own = {process.pid for process in [self._process, *self._process.children(recursive=True)]}
        found = [process for process in json.loads(processes) if process["pid"] in own]
        for process in found:
            process["name"] = OURS_NAME.sub("celery", process["name"])
        return json.dumps(found).encode()


class LocalDocker:
    """docker-py's client, as far as pytest-celery uses it."""

    def __init__(self) -> None:
        self.containers = self.images = self.volumes = self.networks = self

    def build(self, **_: Any) -> tuple[Any, list[Any]]:
        return SimpleNamespace(id="local"), []

    def pull(self, **_: Any) -> Any:
        return SimpleNamespace(id="local")

    def create(self, name: str = "", volumes: Iterable[str] = (), **_: Any) -> Any:
        """Make a volume or a network of that name, or else a container to fill volumes with."""
        if not name:
            return SimpleNamespace(put_archive=lambda _, data: unpack(data, *volumes), remove=lambda **_: None)
        folder = Path(tempfile.mkdtemp(prefix="rcy-volume-"))
        return SimpleNamespace(name=str(folder), id=name, remove=lambda *_: shutil.rmtree(folder, True))

    def run(
        self,
        command: Iterable[str] = (),
        environment: Mapping[str, Any] | None = None,
        volumes: Iterable[str] = (),
        network: str = "",
        ports: Iterable[str] | None = None,
        **_: Any,
    ) -> LocalContainer:
        MARKER.unlink(missing_ok=True)
        folder = next((name for name in volumes if "rcy-volume-" in name), None) or tempfile.mkdtemp()
        return LocalContainer(list(command), Path(folder), dict(environment or {}), network, ports or ())


def unpack(data: io.BytesIO, folder: str) -> None:
    with tarfile.open(fileobj=data) as archive:
        archive.extractall(folder, filter="data")


docker.from_env = LocalDocker
pytest_docker_tools.wrappers.container.tests_inside_container = lambda: False
