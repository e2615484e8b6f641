"""`recyclery run`: checks everything, then runs supervisord in this process."""

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

import psutil

from recyclery.common import exit_codes
from recyclery.common.programs import run_apart
from recyclery.config.fields import BadConfiguration
from recyclery.config.paths import heartbeat_file
from recyclery.config.settings import Address, Pool, Settings, open_listener, write_settings
from recyclery.config.sources import load_settings, read_command_line
from recyclery.pid1.output import FORMATS, Outlet
from recyclery.pid1.supervisord_conf import write_configuration
from recyclery_worker.link import remembered_folder

# A unix socket's address holds 107 bytes (unix(7)); the longest name in the folder is a worker's socket.
LONGEST_ADDRESS = 107
# Includes the download of a chromedriver, which has its own time limit.
APP_CHECK_SECONDS = 180.0
SWEEP_SECONDS = 2.0
GIVE_BACK_SECONDS = 3.0
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
# Exit code of recyclery_worker.app_check for a Chrome that no driver fits.
BROWSER_DOES_NOT_FIT = 3


def run(args: argparse.Namespace) -> int:
    """Run the supervisor until it is asked to stop; return the exit code."""
    # PID 1 has no default actions: without a handler an early one would be lost.
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(signum, stop_early)
    # Signals that our parent blocked would stay blocked in all our children.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    line = read_command_line(args)
    try:
        settings = load_settings(line, os.environ)
        prepare_runtime_dir(settings.runtime_dir, settings.pools)
        lock = lock_runtime_dir(settings.runtime_dir)
        check_listening(settings.http)
        broker_url = check_app(settings.app)
    except BadConfiguration as error:
        print_briefly(f"recyclery: {error}\n")
        return exit_codes.BAD_CONFIGURATION
    heartbeat_file(settings.runtime_dir).unlink(missing_ok=True)
    # Our workers have followed no others.
    shutil.rmtree(remembered_folder(settings.runtime_dir), ignore_errors=True)
    write_settings(settings)
    configuration = write_configuration(settings)
    os.environ["RECYCLERY_RUNTIME_DIR"] = str(settings.runtime_dir)
    os.environ["RECYCLERY_BROKER_URL"] = broker_url
    os.environ["RECYCLERY_RUN"] = secrets.token_hex(4)
    os.environ["CELERY_CUSTOM_WORKER_POOL"] = "recyclery_worker.pool:TaskPool"
    become_subreaper()
    # Imported lazily: a configuration error is reported without waiting for it.
    from recyclery.pid1.supervisord import run_engine  # noqa: PLC0415

    with lock:
        try:
            code, left = run_engine(settings, str(configuration), lambda: load_settings(line, os.environ))
        except Exception:  # a traceback that nobody reads must not keep a dead supervisor running
            print_briefly(traceback.format_exc())
            code, left = exit_codes.KILLED, []
        sweep_descendants()
        if left:
            give_back_left(settings, left)
    return code


def print_briefly(text: str) -> None:
    """Print to standard error, waiting at most a second for a reader."""
    outlet = Outlet(lambda count: b"", fd=2)
    outlet.put(text.encode())
    outlet.drain(1.0)


def stop_early(*_: object) -> None:
    """Exit before anything was started."""
    raise SystemExit(exit_codes.DRAINED)


def prepare_runtime_dir(path: Path, pools: Iterable[Pool]) -> None:
    """Make the runtime folder, private and with a short enough path for sockets; raises BadConfiguration."""
    longest = LONGEST_ADDRESS - max(len(f"/worker-{slot}.sock") for pool in pools for slot in pool.slots)
    if len(os.fsencode(path)) > longest:
        raise BadConfiguration(
            f"{path}: longer than {longest} bytes, too long for unix sockets; "
            "set RECYCLERY_RUNTIME_DIR to a shorter one"
        )
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        problem, advice = error.strerror, "a writable folder"
    else:
        if status.st_uid != os.getuid():
            problem, advice = "belongs to another user", "one of yours"
        elif status.st_mode & 0o022:
            problem, advice = "others can write to it", "a folder of its own"
        elif not os.access(path, os.W_OK):
            problem, advice = "not writable", "a writable folder"
        else:
            return
    raise BadConfiguration(f"{path}: {problem}; set RECYCLERY_RUNTIME_DIR to {advice}")


def lock_runtime_dir(directory: Path) -> TextIO:
    """Return the open lock file, which the kernel unlocks when the process ends.

    Raises BadConfiguration where another supervisor holds it.
    """
    path = directory / "lock"
    lock = path.open("a+", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        holder = path.read_text(encoding="ascii") or "?"
        raise BadConfiguration(
            f"another supervisor (pid {holder}) uses {directory}: "
            "stop it, or set RECYCLERY_RUNTIME_DIR to another folder"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def check_listening(address: Address | None) -> None:
    """Raise BadConfiguration where the governor could not listen on the address."""
    if address is None:
        return
    try:
        open_listener(address).close()
    except OSError as error:
        raise BadConfiguration(
            f"{address.origin}: nothing can listen there: {os.strerror(error.errno or 0)}; "
            "choose another address or port, or RECYCLERY_HTTP=off"
        ) from None


def check_app(app: str) -> str:
    """Import the Celery app in a child process; return its broker's URL, or raise BadConfiguration.

    In PID 1 itself, the app's modules would stay in memory.
    """
    command = [sys.executable, "-m", "recyclery_worker.app_check", app]
    try:
        done = run_apart(command, APP_CHECK_SECONDS)
    except subprocess.TimeoutExpired:
        raise BadConfiguration(
            f"app is {app!r}: importing it took longer than {APP_CHECK_SECONDS:g} s; "
            "does a module of it connect somewhere when it is imported?"
        ) from None
    if done.returncode == BROWSER_DOES_NOT_FIT:
        raise BadConfiguration(f"app is {app!r}: its tasks use browser(): {done.stderr.strip()}")
    if done.returncode != 0:
        raise BadConfiguration(
            f"app is {app!r}: it cannot be imported from {Path.cwd()}: set CELERY_APP to what `celery -A` "
            f"takes, and PYTHONPATH or the working directory to where it is\n{done.stderr.strip()}"
        )
    return str(json.loads(done.stdout)["broker_url"])


def become_subreaper() -> None:
    """Become the parent of orphans among our descendants (prctl(2)), as PID 1 is anyway."""
    if os.getpid() == 1:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def sweep_descendants() -> None:
    """Kill and reap every remaining descendant, for at most SWEEP_SECONDS."""
    deadline = time.monotonic() + SWEEP_SECONDS
    # Raised once there is no child left: each descendant has one of them above it, or becomes one.
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    process.kill()
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            time.sleep(0.02)


def give_back_left(settings: Settings, generations: Iterable[str]) -> None:
    """Give back what killed workers held: all their processes are dead, and perhaps no other worker is up."""
    command = [sys.executable, "-m", "recyclery_worker.delivery.reclaim", settings.app, "--dead", *generations]
    try:
        done = run_apart(command, GIVE_BACK_SECONDS)
        if done.returncode == 0:
            return
        why = done.stderr.strip()
    except subprocess.TimeoutExpired:
        why = f"the app's import and Redis took longer than {GIVE_BACK_SECONDS:g} s"
    except OSError as error:
        why = str(error)
    text = f"what killed workers held is given back when their leases end: {why}"
    print_briefly(FORMATS[settings.log_format].own("warning", text).decode())
