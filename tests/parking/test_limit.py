"""How many deaths are too many: the pool's setting, as it is at the moment."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from recyclery.config.settings import FAST, SLOW, Settings, write_settings
from recyclery_worker.link import DEFAULT_MAX_DEATHS
from recyclery_worker.parking.admission import exceeds_limit, read_max_deaths


@pytest.mark.parametrize(
    ("deaths", "limit", "parked"),
    [(0, 3, False), (2, 3, False), (3, 3, True), (7, 3, True), (1, 1, True), (9, 0, False)],
)
def test_a_task_is_parked_at_the_limit_and_never_where_that_is_none(
    deaths: int, limit: int, parked: bool
) -> None:
    assert exceeds_limit(deaths, limit) is parked


def test_the_limit_is_the_one_in_force_for_this_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECYCLERY_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("RECYCLERY_POOL", "slow")
    for limit in (5, 0):
        slow = replace(SLOW, max_task_deaths=limit)
        write_settings(Settings(app="app", pools=(FAST, slow), runtime_dir=tmp_path))
        assert read_max_deaths() == limit


def test_without_a_supervisor_the_limit_is_its_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECYCLERY_RUNTIME_DIR", str(tmp_path))
    assert read_max_deaths() == DEFAULT_MAX_DEATHS == SLOW.max_task_deaths
