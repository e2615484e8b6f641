"""Programs that import the user's app, each in a process of its own, run to their end."""

import contextlib
import fcntl
import os
import signal
import subprocess
from collections.abc import Sequence


def run_apart(command: Sequence[str], seconds: float) -> "subprocess.CompletedProcess[str]":
    """Return how a program ended and what it wrote; raises subprocess.TimeoutExpired.

    What the app has started there ends with it: each worker starts its own.
    """
    # Not to pipes: these end only when all have closed them that inherited them, as a helper of the app has.
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    with (
        os.fdopen(os.memfd_create("stdout", flags), "rb") as output,
        os.fdopen(os.memfd_create("stderr", flags), "rb") as errors,
    ):
        with subprocess.Popen(command, stdout=output, stderr=errors, start_new_session=True) as process:
            try:
                process.wait(seconds)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        written = []
        for file in (output, errors):
            # What has left the session can then not fill the memory.
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
            file.seek(0)
            written.append(file.read().decode(errors="replace"))
    return subprocess.CompletedProcess(command, process.returncode, *written)
