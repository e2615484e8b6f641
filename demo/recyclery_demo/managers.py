"""Who may run the two pools: Recyclery, or stock Celery at the deployment guide's settings."""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recyclery_demo.requirements import Requirements

CELERY_APP = "app.infrastructure.celery"
POOLS = ("fast", "slow")
# Settings of the shell we were started from; they would change the pools under comparison.
_OURS = ("CELERY_", "RECYCLERY_")
_FOREIGN = ("PORT", "REDIS_URL", "SITE_URL", "SITE_PASSWORD")


@dataclass(frozen=True)
class Manager:
    """The command that is PID 1 of the cage, and how long it may take to stop before it is killed."""

    name: str
    command: tuple[str, ...]
    stop_seconds: float


def find_manager(name: str) -> Manager:
    """Return `recyclery` with its built-in pools, which are the guide's, or else stock Celery.

    That is two plain workers under a shell, as a container's CMD starts them. The shell installs no handler, so
    as PID 1 it ignores TERM; ten seconds later Docker kills it, and so do we.
    """
    if name == "recyclery":
        return Manager(name, (sys.executable, "-m", "recyclery", "run"), stop_seconds=30.0)
    return Manager("celery", ("/bin/sh", "-c", shell_script()), stop_seconds=10.0)


def shell_script(*slow_options: str) -> str:
    """Return the shell's words for both workers."""
    return f"{fast_worker()} & {slow_worker(*slow_options)} & wait"


def fast_worker() -> str:
    """Return the guide's command for the light tasks."""
    return _worker("fast", "-Q", "high,default", "-c", "3", "--max-tasks-per-child", "100")


def slow_worker(*options: str) -> str:
    """Return the guide's command for the scraping tasks, with further options of `celery worker`."""
    return _worker("slow", "-Q", "low", "-c", "1", "--max-tasks-per-child", "10", *options)


def _worker(name: str, *options: str) -> str:
    celery = (sys.executable, "-m", "celery", "-A", CELERY_APP)
    return shlex.join([*celery, "worker", "-l", "info", "-n", f"{name}@%h", *options])


def base_environment(requirements: Requirements) -> dict[str, str]:
    """Return our environment with the example importable, without settings of Celery or Recyclery."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(_OURS) and name not in _FOREIGN
    }
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(requirements.backoffice), environment.get("PYTHONPATH")])
    )
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def worker_environment(
    base: Mapping[str, str],
    requirements: Requirements,
    redis_url: str,
    site_url: str,
    folder: Path,
    *,
    budget_bytes: int | None,
) -> dict[str, str]:
    """Return the environment of the workers and of every command that speaks to their supervisor.

    `folder` holds Recyclery's sockets, and the temporary files of everything in the cage, browsers above all.
    """
    environment = {
        **base,
        "CELERY_APP": CELERY_APP,
        "REDIS_URL": redis_url,
        "SITE_URL": site_url,
        "CHROME_BINARY": str(requirements.chrome),
        "CHROMEDRIVER": str(requirements.chromedriver),
        "RECYCLERY_RUNTIME_DIR": str(folder / "run"),
        "RECYCLERY_STATE_DIR": str(folder / "state"),
        "TMPDIR": str(folder / "tmp"),
    }
    if budget_bytes is not None:
        environment["RECYCLERY_MEMORY_LIMIT"] = str(budget_bytes)
    return environment
