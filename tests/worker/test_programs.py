"""The worker's programs (`python -m recyclery_worker.…`) when a worker's own process starts them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("program", ["app_check", "delivery.reclaim", "tuning.cleanup"])
def test_a_program_does_not_warn_that_its_package_has_imported_it(program: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("from celery import Celery\napp = Celery(broker='memory://')\n")
    done = subprocess.run(
        [sys.executable, "-m", f"recyclery_worker.{program}", "shop"],
        env={**os.environ, "RECYCLERY_POOL": "low"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "RuntimeWarning" not in done.stderr
    assert done.stdout or "not Redis" in done.stderr
