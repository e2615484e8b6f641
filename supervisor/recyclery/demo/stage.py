"""Setting the stage of a storm: services outside, workers in their cage, and all of it gone afterwards."""

import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from recyclery.demo.managers import POOLS, Manager, Places, base_environment, worker_environment
from recyclery.demo.meters import Meter, make_meter
from recyclery.demo.plan import StormPlan
from recyclery.demo.requirements import DemoError, Requirements
from recyclery.demo.services import running_redis, running_site
from recyclery.demo.status import StatusPoll
from recyclery.demo.storm import Storm
from recyclery.sandbox.cage import Cage, last_lines, make_cage_cgroup
from recyclery.sandbox.cgroups import CannotCageError, MemoryCgroup

READY_SECONDS = 90.0


@dataclass(frozen=True)
class Stage:
    """Everything one storm needs."""

    manager: Manager
    cage: Cage
    meter: Meter
    storm: Storm
    poll: StatusPoll
    log: Path


@contextmanager
def limited_memory(limit_bytes: int, say: Callable[[str], None]) -> Iterator[MemoryCgroup | None]:
    """Yield a cgroup of this limit, or None where there can be none and a stated budget has to do."""
    cgroup = None
    try:
        cgroup = make_cage_cgroup(limit_bytes)
    except CannotCageError as error:
        say(f"No kernel limit here ({error}): the supervisor is told its budget instead.")
    try:
        yield cgroup
    finally:
        if cgroup is not None:
            cgroup.remove()


@contextmanager
def set_stage(
    requirements: Requirements,
    manager: Manager,
    plan: StormPlan,
    *,
    cgroup: MemoryCgroup | None,
    limit_bytes: int,
    log: Path | None,
) -> Iterator[Stage]:
    """Start the services and the workers, yield them, and end whatever is left of them."""
    with ExitStack() as stack:
        folder = stack.enter_context(_private_folder())
        base = base_environment(requirements)
        redis_url = stack.enter_context(running_redis(requirements.redis_server, base, folder))
        site_url = stack.enter_context(running_site(sys.executable, base, folder))
        places = Places(redis_url, site_url, folder)
        places.temporary.mkdir()
        environment = worker_environment(
            base, requirements, places, budget_bytes=None if cgroup else limit_bytes
        )
        log = log or folder / "workers.log"
        cage = stack.enter_context(
            Cage(
                manager.command, environment=environment, folder=requirements.backoffice, log=log, cgroup=cgroup
            )
        )
        poll = StatusPoll(environment)
        storm = Storm(redis_url, secrets.token_hex(4), plan)
        yield Stage(manager, cage, make_meter(cage), storm, poll, log)


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
        status = stage.cage.wait(0.1)
        if status is not None:
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
