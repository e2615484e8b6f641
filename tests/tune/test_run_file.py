"""A run is kept window by window, and read again."""

from pathlib import Path

import msgspec
import pytest

from recyclery.decide.memory_model import PoolModel
from recyclery.tune.run_file import Closed, Ended, RunFile, read_run_file
from recyclery.tune.spec import TuningFailed
from support.tune_windows import asked, window

SPEC = asked()


def test_a_run_is_read_as_it_was_written_but_for_a_line_cut_off(tmp_path: Path) -> None:
    file = RunFile(tmp_path / "run")
    file.begin(SPEC)
    file.add(Closed(window(1), PoolModel()))
    whole = file.path.read_bytes()
    file.path.write_bytes(whole + b'{"type": "win')
    read = read_run_file(file.path)
    assert (read.spec, read.windows) == (SPEC, (window(1),))
    file.repair()
    assert file.path.read_bytes() == whole


def test_a_run_is_complete_when_it_was_ended_with_all_loads_that_are_asked_for(tmp_path: Path) -> None:
    file = RunFile(tmp_path / "run")
    file.begin(SPEC)
    assert not read_run_file(file.path).is_complete(SPEC)
    file.add(Ended(()))
    read = read_run_file(file.path)
    assert read.is_complete(SPEC)
    assert not read.is_complete(msgspec.structs.replace(SPEC, loads=("2/s",)))


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    file = RunFile(tmp_path / "run")
    file.begin(SPEC)
    with pytest.raises(TuningFailed, match="--out"):
        file.begin(SPEC)


@pytest.mark.parametrize("text", ["", "text\n", "{}\n", '{"type": "head", "version": 1}\n'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run"
    path.write_text(text)
    with pytest.raises(TuningFailed, match="no run of `recyclery tune`"):
        read_run_file(path)


def test_a_run_of_another_version_is_refused(tmp_path: Path) -> None:
    file = RunFile(tmp_path / "run")
    file.begin(SPEC)
    file.path.write_bytes(file.path.read_bytes().replace(b'"version":1', b'"version":2'))
    with pytest.raises(TuningFailed, match="of version 2"):
        read_run_file(file.path)
