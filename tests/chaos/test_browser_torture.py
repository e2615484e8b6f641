"""Every mishap a scraping task can meet with, mixed at random: each ends as it must, and nothing is left.

RECYCLERY_TORTURE_SESSIONS=1000 makes it long; `scripts/bench browser_torture` is the same with a table.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recyclery.sandbox.cage import CannotCageError
from recyclery_demo.cage import make_cage_cgroup

SESSIONS = int(os.environ.get("RECYCLERY_TORTURE_SESSIONS", "60"))


@pytest.mark.browser
@pytest.mark.cgroup
@pytest.mark.chaos
@pytest.mark.timeout(300 + 20 * SESSIONS)
def test_sessions_with_every_mishap_end_as_they_must_and_leave_nothing() -> None:
    try:
        make_cage_cgroup(1 << 30).remove()
    except CannotCageError as error:
        pytest.skip(f"no cage here: {error}")
    command = [sys.executable, "-m", "benchmarks.browser_torture", "--sessions", str(SESSIONS)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    # Its first line names the seed.
    assert done.stdout, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["figures"]["sessions"] == SESSIONS
    broken = {name: bound for name, bound in report["required"].items() if not bound["holds"]}
    assert broken == {}, done.stdout
    assert done.returncode == 0
