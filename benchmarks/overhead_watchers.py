"""overhead_watchers: not a benchmark; who watches, started and ended with all that belongs to it."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.overhead_app import session_members
from benchmarks.storm_peers import CIRCUS, SUPERLANCE, install_peer
from benchmarks.workers import make_client, make_sender, wait_until
from recyclery.observe.processes import read_proc_file

WATCHERS = ("recyclery", "supervisord-memmon", "circus")
APP = "benchmarks.overhead_app"
WORKER = f"{shlex.quote(sys.executable)} -m celery -A {APP} worker -l error -n slow@%%h -Q low -c 1"
# More than there is: nobody is to act, all are to watch.
LIMIT_GB = 1000
# Memmon's shortest tick; Circus is told the same.
PEER_SECONDS = 5
START_SECONDS = 40.0
HOLD_SECONDS = 180.0
STOP_SECONDS = 30.0


@dataclass(frozen=True)
class Watcher:
    """A supervisor with its worker up: the pid that would be PID 1, its helper's, the worker's main."""

    name: str
    first: int
    helper: int
    main: int
    runtime_dir: Path


@dataclass(frozen=True)
class Held:
    """The processes that are watched; `started` of them by the task itself."""

    pids: list[int]
    started: int


@contextmanager
def running_watcher(name: str, redis_url: str) -> Iterator[Watcher]:
    """Run a supervisor with one worker; at the end nothing of it is left. Raises PeerMissing."""
    mark = secrets.token_hex(8)
    with tempfile.TemporaryDirectory(prefix="rcb-", ignore_cleanup_errors=True) as folder:
        command = make_command(name, Path(folder))
        environment = make_environment(redis_url, Path(folder)) | {"BENCH_OVERHEAD": mark}
        log = Path(folder) / "log"
        with log.open("wb") as output:
            # In a session of its own, so that Ctrl-C comes to us alone and we end it in order.
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=Path(__file__).parents[1],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield find_parts(name, process, redis_url, Path(folder))
        except (TimeoutError, psutil.NoSuchProcess):
            print(log.read_text(errors="replace")[-2000:], file=sys.stderr)
            raise
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            kill_marked(mark)
            process.wait()


def make_command(name: str, folder: Path) -> list[str]:
    """Return the command of a supervisor whose files, if it needs any, are written to `folder`."""
    if name == "recyclery":
        return [sys.executable, "-m", "recyclery", "run", "--pool", "slow"]
    install_peer(CIRCUS if name == "circus" else SUPERLANCE)
    configuration = folder / "peer.ini"
    configuration.write_text(circus_text(folder) if name == "circus" else supervisord_text(folder))
    if name == "circus":
        return [sys.executable, "-m", "circus.circusd", str(configuration)]
    return [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)]


def make_environment(redis_url: str, folder: Path) -> dict[str, str]:
    """Return our environment without what would change the supervisor, and with what it needs."""
    foreign = ("CELERY_", "RECYCLERY_", "PORT")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {
        **clean,
        "BENCH_REDIS_URL": redis_url,
        "CELERY_APP": APP,
        "REDIS_URL": redis_url,
        "RECYCLERY_RUNTIME_DIR": str(folder / "run"),
        "RECYCLERY_STATE_DIR": str(folder / "state"),
        "RECYCLERY_MEMORY_LIMIT": f"{LIMIT_GB}G",
        "TMPDIR": str(folder),
    }


def supervisord_text(folder: Path) -> str:
    """One program, and superlance's memmon counting all below it."""
    memmon = (sys.executable, "-m", "superlance.memmon", "-c", "-p", f"slow={LIMIT_GB}GB")
    return f"""\
[supervisord]
nodaemon = true
logfile = /dev/stdout
logfile_maxbytes = 0
pidfile = {folder}/supervisord.pid
[unix_http_server]
file = {folder}/supervisord.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[program:slow]
command = {WORKER}
redirect_stderr = true
stdout_logfile = /dev/stdout
stdout_logfile_maxbytes = 0
[eventlistener:memmon]
command = {shlex.join(memmon)}
events = TICK_{PEER_SECONDS}
stderr_logfile = /dev/stdout
stderr_logfile_maxbytes = 0
"""


def circus_text(folder: Path) -> str:
    """One watcher, and ResourceWatcher on it and its children."""
    return f"""\
[circus]
endpoint = ipc://{folder}/circus
pubsub_endpoint = ipc://{folder}/circus-events
[watcher:slow]
cmd = {WORKER.replace("%%", "%")}
copy_env = true
[plugin:memory]
use = circus.plugins.resource_watcher.ResourceWatcher
watcher = slow
process_children = true
max_mem = {LIMIT_GB}G
max_cpu = 0
health_threshold = 0
loop_rate = {PEER_SECONDS}
"""


def find_parts(name: str, process: subprocess.Popen[bytes], redis_url: str, folder: Path) -> Watcher:
    """Wait until the worker takes tasks; tell the worker's main process from the supervisor's helper."""
    sender = make_sender(redis_url)

    def is_up() -> bool:
        if process.poll() is not None:
            raise TimeoutError(f"{name} ended at once, status {process.returncode}")
        return bool(sender.control.ping(timeout=0.5))

    wait_until(is_up, START_SECONDS)
    below = {child.pid: child.cmdline() for child in psutil.Process(process.pid).children()}
    mains = [pid for pid, command in below.items() if command[2:3] in (["celery"], ["recyclery_worker.celery"])]
    helpers = [pid for pid in below if pid not in mains]
    if len(mains) != 1 or len(helpers) != 1:
        raise TimeoutError(f"{name}: a worker and a helper were to be found, not {list(below.values())}")
    return Watcher(name, process.pid, helpers[0], mains[0], folder / "run")


@contextmanager
def held_processes(redis_url: str, kind: str, count: int) -> Iterator[Held]:
    """Have the worker's child start the processes, and end them with the block."""
    if count == 0:
        yield Held([], 0)
        return
    client = make_client(redis_url)
    make_sender(redis_url).send_task(f"{APP}.hold", args=[kind, count], queue="low")
    try:
        # In short steps, for a signal's sake.
        deadline = time.monotonic() + HOLD_SECONDS
        while (said := client.lpop("overhead:held")) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{count} {kind} did not start within {HOLD_SECONDS:g} s")
            time.sleep(0.2)
        told = json.loads(said)  # type: ignore[arg-type]
        yield Held(session_members(told["pid"]), told["started"])
    finally:
        client.rpush("overhead:release", "")


def kill_marked(mark: str) -> None:
    """Kill whatever carries the mark in its environment, or is below what does, until nothing does."""
    needle = f"BENCH_OVERHEAD={mark}".encode()
    for _ in range(50):
        marked = [
            process
            for process in psutil.process_iter()
            if needle in read_proc_file(f"/proc/{process.pid}/environ") and process.pid != os.getpid()
        ]
        doomed = set(marked)
        for process in marked:
            with suppress(psutil.Error):
                doomed.update(process.children(recursive=True))
        if not doomed:
            return
        for process in doomed:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.1)
