"""Asking PID 1 over its socket never hangs."""

import socket
from pathlib import Path

import pytest

from recyclery.observe import supervisord as engine


def test_a_pid_1_that_does_not_answer_is_away_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "SUPERVISORD_ANSWER_SECONDS", 0.2)
    path = tmp_path / "supervisor.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(engine.SupervisordUnavailable, match="timed out"):
            engine.call_supervisord(path, "supervisor.getAllProcessInfo")
