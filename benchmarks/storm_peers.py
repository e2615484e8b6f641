"""storm_peers: not a benchmark; who else can run the storm's two workers, at the guide's settings."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from recyclery.demo.managers import Manager, fast_worker, find_manager, shell_script, slow_worker

MANAGERS = ("recyclery", "celery", "celery-max-memory", "supervisord-memmon", "circus", "tini")
SLOW_MAX_KIB = 200_000
SLOW_MAX_MB = 300
# What Docker gives a container; then it is killed, and so is a peer.
STOP_SECONDS = 10.0
# A scraping task has 60 s: what restarts a worker is to let it finish that.
GRACE_SECONDS = 60
CIRCUS = "circus>=0.19,<1"
SUPERLANCE = "superlance>=2,<3"


class PeerMissing(Exception):
    """This peer cannot be had here; the message says why."""


def make_manager(name: str, folder: Path) -> Manager:
    """Return a manager whose files, if it needs any, are written to `folder`; raises PeerMissing."""
    if name in {"recyclery", "celery"}:
        return find_manager(name)
    if name == "celery-max-memory":
        script = shell_script("--max-memory-per-child", str(SLOW_MAX_KIB))
        return Manager(name, ("/bin/sh", "-c", script), STOP_SECONDS)
    if name == "tini":
        # -g: TERM goes to the workers too, and not only to the shell, which would not pass it on.
        return Manager(name, (find_tini(), "-g", "--", "/bin/sh", "-c", shell_script()), STOP_SECONDS)
    install_peer(CIRCUS if name == "circus" else SUPERLANCE)
    configuration = folder / f"{name}.ini"
    if name == "circus":
        configuration.write_text(circus_configuration(folder))
        return Manager(name, (sys.executable, "-m", "circus.circusd", str(configuration)), STOP_SECONDS)
    configuration.write_text(supervisord_configuration(folder))
    command = (sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration))
    return Manager(name, command, STOP_SECONDS)


def supervisord_configuration(folder: Path) -> str:
    """Two programs, and superlance's memmon as its documentation has it.

    With its -c, so that it counts what the worker started, and not the main process alone.
    """
    socket = folder / "supervisord.sock"
    programs = "".join(
        f"""
[program:{name}]
command = {command.replace("%", "%%")}
stopwaitsecs = {GRACE_SECONDS}
killasgroup = true
redirect_stderr = true
stdout_logfile = /dev/stdout
stdout_logfile_maxbytes = 0
"""
        for name, command in (("fast", fast_worker()), ("slow", slow_worker()))
    )
    return f"""\
[supervisord]
nodaemon = true
logfile = /dev/stdout
logfile_maxbytes = 0
pidfile = {folder}/supervisord.pid
[unix_http_server]
file = {socket}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
{programs}
[eventlistener:memmon]
command = {shlex.join((sys.executable, "-m", "superlance.memmon", "-c", "-p", f"slow={SLOW_MAX_MB}MB"))}
events = TICK_60
stderr_logfile = /dev/stdout
stderr_logfile_maxbytes = 0
"""


def circus_configuration(folder: Path) -> str:
    """Two watchers and ResourceWatcher on the slow one and its children.

    Only memory is to count, so its limits on CPU are off; and it looks every 5 s instead of every 60, for it
    acts at the fourth look in a row that is too much.
    """
    watchers = "".join(
        f"""
[watcher:{name}]
cmd = {command}
copy_env = true
graceful_timeout = {GRACE_SECONDS}
"""
        for name, command in (("fast", fast_worker()), ("slow", slow_worker()))
    )
    return f"""\
[circus]
endpoint = ipc://{folder}/circus
pubsub_endpoint = ipc://{folder}/circus-events
{watchers}
[plugin:memory]
use = circus.plugins.resource_watcher.ResourceWatcher
watcher = slow
process_children = true
max_mem = {SLOW_MAX_MB}M
max_cpu = 0
health_threshold = 0
loop_rate = 5
"""


def install_peer(package: str) -> None:
    """Install a peer, such as `circus>=0.19`, where its module is missing; raises PeerMissing."""
    module = package.partition(">")[0]
    if importlib.util.find_spec(module) is not None:
        return
    print(f"installing {package}", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", package]
    if subprocess.run(pip, stdout=sys.stderr, check=False).returncode != 0:
        raise PeerMissing(f"pip could not install {package}")
    importlib.invalidate_caches()


def find_tini() -> str:
    """Return the path of tini, from Debian's package where it has to be installed; raises PeerMissing."""
    if shutil.which("tini") is None and os.geteuid() == 0 and shutil.which("apt-get") is not None:
        print("installing tini", file=sys.stderr)
        apt_get = ["apt-get", "install", "-y", "--no-install-recommends", "tini"]
        subprocess.run(apt_get, stdout=subprocess.DEVNULL, check=False)
    found = shutil.which("tini")
    if found is None:
        raise PeerMissing("there is no tini here; as root: apt-get install tini")
    return found
