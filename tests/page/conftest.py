"""A history of hours, recorded once a file: its newest sample has to be fresh when it is read."""

from pathlib import Path

import pytest

from support.pages import record_hours


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty hours of a container of 1000 MiB."""
    return record_hours(tmp_path_factory.mktemp("recorded") / "history.db", 30)
