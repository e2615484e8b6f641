"""`recyclery run` over shell commands in place of Celery workers, as PID 1 of a namespace or as a subreaper."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from support.supervised import SUPPORT, Supervised
from support.waiting import wait_for

AS_PID_1 = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
AS_SUBREAPER: tuple[str, ...] = ()
# A worker that leaves on TERM, one that does not, and one that waits for a file before it does.
READY = 'trap "echo bye; exit 0" TERM; echo up; while :; do sleep 0.1; done'
STUBBORN = 'trap "" TERM; echo up; while :; do sleep 0.1; done'
DRAINING = 'trap "echo draining" TERM; echo up; until [ -e "$GATE" ]; do sleep 0.1; done; echo drained'


class StoodIn(Supervised):
    """The running supervisor; `pid` is its own, seen from here."""

    def __init__(self, process: "subprocess.Popen[str]", runtime_dir: Path, *, inside: bool) -> None:
        super().__init__(process, runtime_dir)
        self._inside = inside
        self.pid = wait_for(lambda: only_child(process.pid), "PID 1") if inside else process.pid

    def _read(self) -> None:
        if self.process.stdout is not None:
            super()._read()

    def send(self, signum: int) -> None:
        """Signal the supervisor."""
        os.kill(self.pid, signum)

    def stop(self, signum: int = signal.SIGTERM, seconds: float = 40.0) -> int:
        """Signal it and return its exit code."""
        self.send(signum)
        return self.wait(seconds)

    def children(self) -> dict[str, int]:
        """Return the pids, seen from here, of the governor (by its name) and of the workers (`sh`)."""
        found = {}
        for pid, parent, _ in list_processes():
            if parent == self.pid:
                # One that has ended meanwhile, or still is the fork of its parent, is neither.
                with contextlib.suppress(OSError):
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                    if b"recyclery.governor" in words:
                        found["governor"] = pid
                    elif words[0].rpartition(b"/")[2] == b"sh":
                        found["worker"] = pid
        return found

    def defunct(self) -> int:
        """Count its children that ended and were not collected."""
        return count_defunct(self.pid)


Start = Callable[..., AbstractContextManager[StoodIn]]


def only_child(pid: int) -> int | None:
    """Return the pid of a process's child, None before there is one."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


def count_defunct(parent: int) -> int:
    """Count a process's children that ended and were not collected."""
    return sum(state == "Z" and above == parent for _, above, state in list_processes())


def list_processes() -> Iterator[tuple[int, int, str]]:
    """Yield each process's pid, its parent's, and its state."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        yield int(folder.name), int(parent), state


def environment_for(runtime_dir: str, commands: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment: none of our own variables but these."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "RECYCLERY_"))
    }
    return {
        **clean,
        "CELERY_APP": "no_app",
        "PYTHONPATH": str(SUPPORT.parent),
        "RECYCLERY_RUNTIME_DIR": runtime_dir,
        "RECYCLERY_STATE_DIR": f"{runtime_dir}/state",
        **{f"STAND_IN_{name.upper()}": command for name, command in commands.items()},
        **more,
    }


@contextmanager
def stood_in(
    *arguments: str,
    wrapper: tuple[str, ...],
    commands: Mapping[str, str],
    environment: Mapping[str, str] = {},
    stdout: int = subprocess.PIPE,
) -> Iterator[StoodIn]:
    """Run the pools that have a command until the block ends; as PID 1 if the wrapper makes it one."""
    pools = [word for name in commands for word in ("--pool", name)]
    with tempfile.TemporaryDirectory(prefix="rcy-") as runtime_dir:
        process = subprocess.Popen(
            [*wrapper, sys.executable, "-m", "support.stand_in", "run", *pools, *arguments],
            env=environment_for(runtime_dir, commands, environment),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            text=True,
        )
        running = StoodIn(process, Path(runtime_dir), inside=wrapper[:1] == AS_PID_1[:1])
        try:
            yield running
        finally:
            # A namespace ends with its PID 1; what a subreaper leaves when it is killed would stay.
            left = list(running.children().values())
            process.kill()
            process.wait()
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
