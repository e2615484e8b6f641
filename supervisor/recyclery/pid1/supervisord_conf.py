"""Writes supervisord's configuration for the pools and the governor."""

import shlex
import sys
from pathlib import Path

from recyclery.config import secrets
from recyclery.config.paths import supervisord_socket
from recyclery.config.settings import Pool, Settings

GOVERNOR = "governor"

TEMPLATE = """\
; Written by `recyclery run` at every start, for supervisorctl -c.
[unix_http_server]
file={socket}
chmod=0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[rpcinterface:recyclery]
supervisor.rpcinterface_factory=recyclery.pid1.processes:WorkersInterface

[supervisorctl]
serverurl=unix://{socket}

[supervisord]
nodaemon=true
nocleanup=true
identifier=recyclery
logfile=/dev/null
logfile_maxbytes=0
loglevel={log_level}
pidfile={runtime_dir}/supervisord.pid
childlogdir={runtime_dir}
minfds=256
minprocs=1

[eventlistener:{governor}]
command={governor_command}
events=PROCESS_STATE
priority=1
startsecs=1
startretries=1000000000
autorestart=true
stopwaitsecs=3
stdout_logfile=NONE
stderr_logfile=NONE
"""

# Only the governor gets the secrets: tasks and their browsers inherit a worker's environment.
NO_SECRETS = ",".join(f'{name}=""' for name in secrets.ALL)

PROGRAM = """
[program:{slot}]
command={command}
environment=RECYCLERY_POOL="{pool}",RECYCLERY_SLOT="{slot}",{no_secrets}
autostart={autostart}
priority=10
startsecs=5
startretries={start_retries}
autorestart=true
stopsignal=TERM
stopwaitsecs={grace_seconds}
; A signal to the group would kill the tasks that a warm shutdown waits for.
stopasgroup=false
killasgroup=true
redirect_stderr=true
stdout_logfile=NONE
"""


def write_configuration(settings: Settings) -> Path:
    """Write supervisord's configuration into the runtime folder, and return its path."""
    directory = settings.runtime_dir
    text = TEMPLATE.format(
        socket=escape_percent(str(supervisord_socket(directory))),
        runtime_dir=escape_percent(str(directory)),
        log_level="debug" if settings.log_level == "debug" else "info",
        governor=GOVERNOR,
        governor_command=escape_percent(shlex.join([sys.executable, "-m", "recyclery.governor"])),
    )
    for pool in settings.pools:
        for slot in pool.slots:
            text += PROGRAM.format(
                pool=pool.name,
                slot=slot,
                no_secrets=NO_SECRETS,
                command=escape_percent(format_command(settings, pool, slot)),
                autostart=str(slot == pool.name).lower(),
                grace_seconds=whole_seconds(settings.grace_seconds),
                start_retries=settings.max_deaths - 1,
            )
    path = directory / "supervisord.conf"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


def format_command(settings: Settings, pool: Pool, slot: str) -> str:
    """Return the command line of a pool's worker as supervisord takes it."""
    return shlex.join(worker_command(settings, pool, slot))


def worker_command(settings: Settings, pool: Pool, slot: str) -> list[str]:
    """Return the command line of a pool's Celery worker."""
    return [
        sys.executable,
        *("-m", "recyclery_worker.celery"),
        *("-A", settings.app),
        "worker",
        # Ours is the custom one.
        *("-P", "custom" if pool.forks else pool.implementation),
        *("-n", f"{slot}@%h"),
        *("-Q", ",".join(pool.queues)),
        *("-c", str(pool.concurrency)),
        *("--max-tasks-per-child", str(pool.max_tasks_per_child)),
        *("-l", settings.log_level),
        *pool.celery_options,
    ]


def whole_seconds(seconds: float) -> int:
    """Return seconds as supervisord takes them: whole ones, at least 1."""
    return max(1, round(seconds))


def escape_percent(text: str) -> str:
    """Return text for supervisord's configuration, where % begins an expansion."""
    return text.replace("%", "%%")
