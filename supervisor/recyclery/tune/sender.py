"""The process that sends a tuning's tasks, seen from the tuning."""

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping

import msgspec

from recyclery.tune.spec import Spec, TuningFailed
from recyclery_worker.tuning.messages import Answer, EndTuning, SenderOrder

# Importing the user's app may take long; sending tasks does not.
IMPORT_SECONDS = 180.0
REPLY_SECONDS = 60.0


class TaskSender:
    """The process. It removes all of the tuning's keys when it is told to quit, and when the tuning is dead."""

    def __init__(self, spec: Spec, environment: Mapping[str, str], *words: str) -> None:
        command = [sys.executable, "-m", "recyclery_worker.tuning.sender", spec.app, spec.task, *words]
        for option, value in (("--args", spec.args), ("--generate", spec.generate)):
            command += [option, value] if value is not None else []
        self._answers = b""
        self._is_ready = False
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            # A Ctrl-C at the terminal reaches only the tuning, which then closes the sender.
            start_new_session=True,
        )
        self.pid = self._process.pid
        assert self._process.stdin is not None  # noqa: S101  # made with a pipe
        assert self._process.stdout is not None  # noqa: S101  # made with a pipe
        self._input, self._output = self._process.stdin, self._process.stdout

    def wait_until_ready(self) -> list[str]:
        """Return once tasks can be sent, with the dead tunings that were cleaned up; raises TuningFailed."""
        cleaned = self._read(IMPORT_SECONDS).cleaned
        self._is_ready = True
        return cleaned

    def ask(self, order: SenderOrder) -> Answer:
        """Have it carry out an order, and return its answer; raises TuningFailed."""
        # A process that has ended has left its reason in the pipe.
        with contextlib.suppress(BrokenPipeError):
            self._input.write(msgspec.json.encode(order) + b"\n")
            self._input.flush()
        return self._read(REPLY_SECONDS)

    def check(self) -> None:
        """Raise TuningFailed with its reason if it has ended."""
        if self._process.poll() is not None:
            self._read(REPLY_SECONDS)

    def close(self) -> None:
        """Have it remove everything and end."""
        if not self._is_ready:
            # It has sent nothing, and may take long to import the app.
            self._process.kill()
        elif self._process.poll() is None:
            # Without an answer it does not work as it should; it also removes everything when its input ends.
            with contextlib.suppress(TuningFailed):
                self.ask(EndTuning())
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        try:
            self._process.wait(REPLY_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()

    def _read(self, seconds: float) -> Answer:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._answers:
            readable, _, _ = select.select([self._output], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise TuningFailed(f"the process that sends the tasks does not answer within {seconds:g} s")
            read = os.read(self._output.fileno(), 1 << 16)
            if not read:
                raise TuningFailed(f"the process that sends the tasks ended with {self._process.wait()}")
            self._answers += read
        line, _, self._answers = self._answers.partition(b"\n")
        answer = msgspec.json.decode(line, type=Answer)
        if answer.error:
            raise TuningFailed(answer.error)
        return answer
