"""Whatever dies, stands still or goes away, and when: every task is done, and nothing is left behind.

RECYCLERY_CHAOS_SECONDS says how long, RECYCLERY_CHAOS_SEED plays a run again.
"""

import os
import random
import shutil
import tempfile
from pathlib import Path

import msgspec
import pytest

from chaos.auditor import audit, find_failed
from chaos.faults import WEIGHTS, plan_faults
from chaos.player import Player, say
from recyclery.sandbox.cage import CannotCageError
from recyclery_demo.cage import make_cage_cgroup

SECONDS = float(os.environ.get("RECYCLERY_CHAOS_SECONDS", "120"))


@pytest.mark.chaos
@pytest.mark.cgroup
@pytest.mark.timeout(900 + 2 * SECONDS)
def test_under_faults_of_every_kind_each_task_is_done_and_nothing_is_left(tmp_path: Path) -> None:
    try:
        make_cage_cgroup(1 << 30).remove()
    except CannotCageError as error:
        pytest.skip(f"no container can be made here: {error}")
    seed = int(os.environ.get("RECYCLERY_CHAOS_SEED", random.randrange(1 << 32)))
    say(f"RECYCLERY_CHAOS_SEED={seed} RECYCLERY_CHAOS_SECONDS={SECONDS:g}")
    # Sockets want a short name; what is worth reading afterwards is kept by pytest.
    with tempfile.TemporaryDirectory(prefix="rcy-", ignore_cleanup_errors=True) as folder:
        installed = all(map(shutil.which, ("chromium", "chromedriver")))
        player = Player(Path(folder), tmp_path, with_browser=installed)
        try:
            player.begin()
            player.play(plan_faults(seed, SECONDS))
            player.settle()
            record = player.finish()
        finally:
            player.close()
    (tmp_path / "record.json").write_bytes(msgspec.json.encode(record))
    for line in find_failed(record):
        say(f"note: {line}")
    findings = audit(record)
    say(f"{len(record.sent)} tasks, {len(record.runs)} runs, {dict(player.dealt)}")
    assert findings == [], "\n".join(findings)
    assert SECONDS < 120 or {kind for kind in WEIGHTS if not player.dealt[kind]} == player.impossible
