"""A real RabbitMQ for tests, where the machine has one."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import amqp
import pytest

from support.ports import free_port
from support.waiting import wait_for

# Debian's wrapper of it, on PATH, would change the user.
DEBIAN = "/usr/lib/rabbitmq/bin/rabbitmq-server"


@contextmanager
def rabbitmq_server() -> Iterator[str]:
    """Run a RabbitMQ of its own on a free loopback port; give its URL. Skips the test where there is none."""
    program = find_program()
    port, names = free_port(), free_port()
    with (
        tempfile.TemporaryDirectory(prefix="rabbitmq-", ignore_cleanup_errors=True) as folder,
        ExitStack() as stack,
    ):
        variables = {**os.environ, **rabbitmq_variables(folder, port, names)}
        # Erlang would start its own, which stays.
        stack.enter_context(running(epmd_command(names), variables))
        server = stack.enter_context(running([program], variables))
        wait_for(lambda: server.poll() is not None or answers(port), "RabbitMQ", 60)
        yield f"amqp://guest:guest@127.0.0.1:{port}//"


def rabbitmq_variables(folder: str, port: int, names: int) -> dict[str, str]:
    """Return what tells a RabbitMQ its port, that of its epmd, and to keep all it has in a folder."""
    return {
        "HOME": folder,
        "ERL_EPMD_PORT": str(names),
        "RABBITMQ_NODENAME": f"test{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
        "RABBITMQ_LOG_BASE": f"{folder}/log",
        "RABBITMQ_PID_FILE": f"{folder}/pid",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
        "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq",
    }


def epmd_command(names: int) -> list[str]:
    return ["epmd", "-port", str(names), "-address", "127.0.0.1"]


def find_program() -> str:
    for program in (DEBIAN, shutil.which("rabbitmq-server")):
        if program is not None and Path(program).exists():
            return program
    pytest.skip("there is no rabbitmq-server here")


@contextmanager
def running(command: list[str], variables: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program until the block ends."""
    process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def answers(port: int) -> bool:
    """Tell whether a RabbitMQ takes connections at a port."""
    try:
        with amqp.Connection(f"127.0.0.1:{port}", connect_timeout=2) as connection:
            return bool(connection.connected)
    except (OSError, amqp.AMQPError):
        return False
