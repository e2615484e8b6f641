"""A clock that a test sets: the time of day of the processes that are started with its environment."""

import os
import shutil
import subprocess
from pathlib import Path

SUPPORT = Path(__file__).parent
HAS_COMPILER = shutil.which("cc") is not None


class SteppedClock:
    """How far the time of day of some processes is from the real one."""

    def __init__(self, folder: Path) -> None:
        self._file, self._library = folder / "step", folder / "stepped_clock.so"
        self.set(0)

    def set(self, seconds: float) -> None:
        """Have it go on with the right time and so many seconds."""
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT)
        # In place and at once: who reads it finds the one or the other.
        os.pwrite(descriptor, f"{seconds:<24.3f}".encode(), 0)
        os.close(descriptor)

    def for_python(self, *paths: str) -> dict[str, str]:
        """Return the environment in which Python, with these paths to import from, has this clock."""
        paths = (str(SUPPORT / "jumping_clock"), *paths)
        return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "STEP_SECONDS_FILE": str(self._file)}

    def for_programs(self) -> dict[str, str]:
        """Return the environment in which any program has it; needs a C compiler."""
        command = ["cc", "-shared", "-fPIC", "-o", str(self._library), str(SUPPORT / "stepped_clock.c")]
        subprocess.run(command, check=True)
        return {"LD_PRELOAD": str(self._library), "STEP_SECONDS_FILE": str(self._file)}
