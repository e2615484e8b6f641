"""The services beside the container: a Redis and the tax office's site, each ended with the demo."""

import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from recyclery.sandbox.cage import Cage, CannotCageError, last_lines
from recyclery_demo.cage import CgroupCage, make_cage_cgroup
from recyclery_demo.cgroups import SandboxCgroup
from recyclery_demo.managers import POOLS, Manager, base_environment, worker_environment
from recyclery_demo.plan import StormPlan
from recyclery_demo.requirements import DemoError, Requirements
from recyclery_demo.storm import Storm
from recyclery_demo.watch import BudgetMeter, CgroupMeter, Meter, StatusPoll

START_SECONDS = 20.0
READY_SECONDS = 90.0
STOP_SECONDS = 3.0
_LOOPBACK = "127.0.0.1"


@contextmanager
def running_redis(redis_server: str, environment: Mapping[str, str], folder: Path) -> Iterator[str]:
    """Run a Redis that keeps nothing on disk and yield its URL."""
    cage, port = _start_redis(redis_server, environment, folder)
    with cage:
        yield f"redis://{_LOOPBACK}:{port}/0"
        _stop(cage)


def _start_redis(redis_server: str, environment: Mapping[str, str], folder: Path) -> tuple[Cage, int]:
    attempts_left = 3
    while True:
        port = _free_port()
        command = [redis_server, "--bind", _LOOPBACK, "--port", str(port), "--dir", str(folder)]
        command += ["--save", "", "--appendonly", "no"]
        log = folder / "redis.log"
        cage = Cage(command, environment=environment, folder=folder, log=log)
        try:
            _wait_until(partial(_answers_ping, port), cage, "redis-server", log)
        except BaseException as error:
            cage.close()
            # Between our finding the port free and Redis taking it, somebody else may have.
            attempts_left -= 1
            if not isinstance(error, DemoError) or attempts_left == 0:
                raise
        else:
            return cage, port


@contextmanager
def running_site(python: str, environment: Mapping[str, str], folder: Path) -> Iterator[str]:
    """Run the tax office's site and yield its URL, which is the first line it prints."""
    log = folder / "site.log"
    with Cage(
        [python, "-m", "taxoffice", "--port", "0"], environment=environment, folder=folder, log=log
    ) as cage:
        _wait_until(lambda: bool(_read_site_url(log)), cage, "the tax office's site", log)
        yield _read_site_url(log)
        _stop(cage)


def _stop(cage: Cage) -> None:
    cage.terminate()
    cage.wait(STOP_SECONDS)


def _wait_until(ready: Callable[[], bool], cage: Cage, name: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while cage.status is not None or not ready():
        if cage.wait(0.05) is not None:
            raise DemoError(f"{name} ended with status {cage.status} at its start:\n{last_lines(log)}")
        if time.monotonic() > deadline:
            raise DemoError(f"{name} did not answer within {START_SECONDS:.0f} s:\n{last_lines(log)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _answers_ping(port: int) -> bool:
    try:
        with socket.create_connection((_LOOPBACK, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _read_site_url(log: Path) -> str:
    """Return the URL, or nothing as long as the line is not whole."""
    for line in log.read_text(errors="replace").splitlines(keepends=True):
        if line.startswith("site: ") and line.endswith("\n"):
            return line.removeprefix("site: ").strip()
    return ""


@dataclass(frozen=True)
class Stage:
    """Everything one storm needs."""

    manager: Manager
    cage: CgroupCage
    meter: Meter
    storm: Storm
    poll: StatusPoll
    log: Path


@contextmanager
def limited_memory(limit_bytes: int, say: Callable[[str], None]) -> Iterator[SandboxCgroup | None]:
    """Yield a cgroup of this limit, or None where there can be none and a stated budget has to do."""
    try:
        cgroup = make_cage_cgroup(limit_bytes)
    except CannotCageError as error:
        say(f"No kernel limit here ({error}): the supervisor is told its budget instead.")
        yield None
        return
    try:
        yield cgroup
    finally:
        cgroup.remove()


@contextmanager
def set_stage(
    requirements: Requirements,
    manager: Manager,
    plan: StormPlan,
    *,
    cgroup: SandboxCgroup | None,
    limit_bytes: int,
    log: Path | None,
) -> Iterator[Stage]:
    """Start the services and the workers, yield them, and end whatever is left of them."""
    with ExitStack() as stack:
        folder = stack.enter_context(_private_folder())
        base = base_environment(requirements)
        redis_url = stack.enter_context(running_redis(requirements.redis_server, base, folder))
        site_url = stack.enter_context(running_site(sys.executable, base, folder))
        (folder / "tmp").mkdir()
        environment = worker_environment(
            base, requirements, redis_url, site_url, folder, budget_bytes=None if cgroup else limit_bytes
        )
        log = log or folder / "workers.log"
        workers = CgroupCage(
            manager.command, environment=environment, folder=requirements.backoffice, log=log, cgroup=cgroup
        )
        cage = stack.enter_context(workers)
        meter = CgroupMeter(cgroup) if cgroup else BudgetMeter(cage)
        storm = Storm(redis_url, secrets.token_hex(4), plan)
        yield Stage(manager, cage, meter, storm, StatusPoll(environment), log)


@contextmanager
def _private_folder() -> Iterator[Path]:
    # Not in $TMPDIR: sockets live in here, and their whole path has but 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_workers(stage: Stage) -> None:
    """Return once a worker of each pool answers; DemoError if one does not in time."""
    deadline = time.monotonic() + READY_SECONDS
    answered: set[str] = set()
    while not answered.issuperset(POOLS):
        if (status := stage.cage.wait(0.1)) is not None:
            raise DemoError(
                f"{stage.manager.name} ended with status {status} at its start:\n{last_lines(stage.log)}"
            )
        if time.monotonic() > deadline:
            missing = ", ".join(sorted(set(POOLS) - answered))
            raise DemoError(f"no answer from pool {missing} in {READY_SECONDS:.0f} s:\n{last_lines(stage.log)}")
        answered |= stage.storm.answering_pools()


def stop_workers(stage: Stage) -> int:
    """Ask PID 1 to stop, kill it if it takes too long, and return its exit status."""
    stage.cage.terminate()
    status = stage.cage.wait(stage.manager.stop_seconds)
    if status is None:
        stage.cage.kill()
        status = stage.cage.wait(10.0)
    return 128 + 9 if status is None else status
