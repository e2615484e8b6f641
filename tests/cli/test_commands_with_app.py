"""A command that imports the app ends once it has answered, whatever the app has started."""

import subprocess
import sys
from pathlib import Path

import pytest

LONG = {
    "a thread": "threading.Thread(target=time.sleep, args=(600,)).start()",
    "an atexit handler": "atexit.register(time.sleep, 600)",
    "a child that inherits the output": "os.fork() or time.sleep(600)",
}
APP = """
import atexit, os, threading, time
from celery import Celery

{started}
app = Celery(broker="memory://")

@app.task
def work(): ...
"""


@pytest.mark.parametrize("started", LONG.values(), ids=LONG)
def test_a_command_ends_with_its_whole_answer_though_the_app_has_started_what_goes_on(
    tmp_path: Path, started: str
) -> None:
    (tmp_path / "shop.py").write_text(APP.format(started=started))
    done = subprocess.run(
        [sys.executable, "-m", "recyclery", "routes", "-A", "shop"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.startswith("task")
    assert done.stdout.endswith("nothing goes to low\n")
    assert (done.returncode, done.stderr) == (1, "")
