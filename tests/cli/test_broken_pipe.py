"""Commands whose output is not read to its end, as by `| head -1`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.supervised import SUPPORT


def run_cut_off(*arguments: str, runtime_dir: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command into a pipe whose other end is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {
        **os.environ,
        "PYTHONPATH": str(SUPPORT),
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "RECYCLERY_RUNTIME_DIR": str(runtime_dir),
    }
    try:
        return subprocess.run(
            [sys.executable, "-m", "recyclery", *arguments],
            env=environment,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)


@pytest.mark.parametrize(
    "arguments",
    [("routes", "-A", "sample_app"), ("doctor", "-A", "sample_app", "--json")],
    ids=lambda words: words[0],
)
def test_a_command_whose_output_is_cut_off_ends_without_a_message(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    ended = run_cut_off(*arguments, runtime_dir=tmp_path)
    assert (ended.returncode, ended.stderr) == (1, "")


@pytest.mark.parametrize("arguments", [("--help",), ("demo", "--help")], ids=lambda words: words[0])
def test_help_that_is_cut_off_ends_without_a_message(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """With 0 where argparse itself takes no notice: where Python does not buffer, from 3.11.4 on."""
    ended = run_cut_off(*arguments, runtime_dir=tmp_path)
    assert ended.returncode in {0, 1}
    assert ended.stderr == ""


def test_an_error_is_printed_also_where_the_output_is_cut_off(tmp_path: Path) -> None:
    ended = run_cut_off("status", runtime_dir=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith("recyclery: no supervisor answers")
