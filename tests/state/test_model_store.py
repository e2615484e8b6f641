"""What was learned outlives the governor, and a file that cannot be read costs only that."""

import logging
from pathlib import Path

import pytest

from recyclery.decide.memory_model import PoolModel, TaskRun, learn, learn_idle
from recyclery.state.model_store import ModelStore, load_models

MIB = 1 << 20
MODEL = learn(learn_idle(PoolModel(), 50 * MIB), TaskRun("slow", "t", 0, 50 * MIB, 300 * MIB, 55 * MIB))


def test_models_are_read_back_as_they_were_stored(tmp_path: Path) -> None:
    learning = ModelStore(tmp_path / "state" / "models.json")
    learning.models["slow"] = MODEL
    learning.store(100.0)
    assert load_models(tmp_path / "state" / "models.json") == {"slow": MODEL}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 99, "models": {}}', b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_left_aside_and_said(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "models.json"
    path.write_bytes(content)
    assert load_models(path) == {}
    assert "left aside" in caplog.text


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    learning = ModelStore(tmp_path / "file" / "models.json")
    with caplog.at_level(logging.WARNING):
        learning.store(100.0)
        learning.store(200.0)
    assert caplog.text.count("cannot be kept") == 1
