"""What is dear to make for the page: made once for all who look on, beside the governor, within bounds."""

import asyncio
import time
from pathlib import Path

import psutil
import pytest

from recyclery.http import page_api
from recyclery.http.page_api import NEEDED_BYTES, SharedResult, find_no_room, run_leaks_report
from support.statuses import status


def test_the_leaks_are_not_looked_for_where_that_would_take_memory_above_the_high_level() -> None:
    room = status(floor_mib=900 - (NEEDED_BYTES >> 20)).container
    assert find_no_room(room) is None
    assert "Too little memory" in (find_no_room(status(floor_mib=901 - (NEEDED_BYTES >> 20)).container) or "")


def test_a_value_is_made_once_for_all_who_ask_and_anew_when_it_is_old() -> None:
    async def count() -> tuple[list[int], int]:
        made = 0

        async def make() -> int:
            nonlocal made
            made += 1
            await asyncio.sleep(0)
            return made

        lasting, passing = SharedResult(make, 3600), SharedResult(make, 0)
        first = await asyncio.gather(*(lasting.get() for _ in range(10)))
        assert await lasting.get() == 1
        await passing.get()
        return first, await passing.get()

    assert asyncio.run(count()) == ([1] * 10, 3)


def test_a_report_that_takes_too_long_is_given_up_and_its_process_is_gone(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_api, "DEADLINE_SECONDS", 0.0)
    begun = time.time()
    found = asyncio.run(run_leaks_report(recorded))
    assert (found.problem, found.report) == ("The report took longer than 0 s.", None)
    assert found.at >= begun
    assert [child for child in psutil.Process().children() if "leaks" in child.cmdline()] == []


def test_a_report_that_is_too_long_for_a_page_is_not_kept(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_api, "MAX_REPORT_BYTES", 1000)
    found = asyncio.run(run_leaks_report(recorded))
    assert found.report is None
    assert "see `recyclery leaks`" in found.problem


def test_secrets_are_no_part_of_what_the_reports_process_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho ${RECYCLERY_HTTP_TOKEN-unset}\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    monkeypatch.setenv("RECYCLERY_HTTP_TOKEN", "a secret")
    found = asyncio.run(run_leaks_report(tmp_path / "history.db"))
    assert bytes(found.report or b"") == b"unset\n"
