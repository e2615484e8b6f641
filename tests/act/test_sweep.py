"""Profile folders of `browser()` are swept now and then, and when a child has died."""

import asyncio
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from recyclery.act.cleanup import FILE_SWEEP_SECONDS, Sweeper


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that the sweeps ran in, one for each."""
    threads: list[str] = []

    def sweep_profiles() -> list[Path]:
        threads.append(threading.current_thread().name)
        return [Path("/tmp/recyclery-profile-a")]

    module = ModuleType("profiles")
    module.sweep_profiles = sweep_profiles  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "recyclery_worker.browser.profiles", module)
    return threads


async def begin_all(sweeper: Sweeper, *times: float) -> None:
    """Begin a sweep at each of these times, the one before being done."""
    for at in times:
        sweeper.begin(at)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others)


def test_a_sweep_is_made_in_a_thread_and_again_when_it_is_due(sweeps: list[str]) -> None:
    asyncio.run(begin_all(Sweeper(), 100.0, 101.0, 100.0 + FILE_SWEEP_SECONDS))
    assert len(sweeps) == 2
    assert threading.main_thread().name not in sweeps


def test_after_a_child_has_died_it_is_made_at_once(sweeps: list[str]) -> None:
    async def die() -> None:
        sweeper = Sweeper()
        await begin_all(sweeper, 100.0)
        sweeper.hurry()
        await begin_all(sweeper, 101.0)

    asyncio.run(die())
    assert len(sweeps) == 2


def test_one_that_takes_long_is_not_joined_by_another(sweeps: list[str]) -> None:
    async def hurry_twice() -> None:
        sweeper = Sweeper()
        for at in (100.0, 101.0):
            sweeper.hurry()
            sweeper.begin(at)
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    asyncio.run(hurry_twice())
    assert len(sweeps) == 1
