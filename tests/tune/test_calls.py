"""With what a task is called: files and generators, and what is said of bad ones."""

import sys
from itertools import islice
from pathlib import Path

import pytest

from recyclery_worker.tuning.sender import TaskArgs, TaskNotSendable, cycle_args


def test_a_files_calls_come_again_and_again(tmp_path: Path) -> None:
    file = tmp_path / "calls"
    file.write_text('[1, "a"]\n\n{"kwargs": {"b": 2}}\n')
    calls = cycle_args(str(file), None)
    assert list(islice(calls, 3)) == [TaskArgs((1, "a")), TaskArgs((), {"b": 2}), TaskArgs((1, "a"))]


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "is empty"), ("[1\n", "line 1 is not JSON"), ("[1]\n2\n", "line 2"), ('{"arguments": []}', "line 1")],
)
def test_a_file_that_cannot_be_used_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "calls"
    file.write_text(text)
    with pytest.raises(TaskNotSendable, match=said):
        next(cycle_args(str(file), None)) and list(islice(cycle_args(str(file), None), 2))


def test_a_generator_begins_anew_when_it_is_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_calls.py").write_text(
        "def calls():\n    yield [1]\n    yield [2]\nfixed = [[3]]\nnone = []\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert [call.args for call in islice(cycle_args(None, "made_calls:calls"), 3)] == [(1,), (2,), (1,)]
        assert next(cycle_args(None, "made_calls:fixed")).args == (3,)
        with pytest.raises(TaskNotSendable, match="yields nothing"):
            next(cycle_args(None, "made_calls:none"))
        with pytest.raises(TaskNotSendable, match="AttributeError"):
            next(cycle_args(None, "made_calls:missing"))
    finally:
        sys.modules.pop("made_calls", None)
