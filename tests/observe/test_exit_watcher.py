"""The end of a process that is watched is told at once."""

import asyncio
import subprocess
from pathlib import Path

from recyclery.observe.observer import ExitWatcher, find_watched
from recyclery.observe.processes import read_process
from recyclery.observe.snapshot import ProcessKey
from support.snapshots import CHILD, child, process, snapshot


def key_of(popen: "subprocess.Popen[bytes]") -> ProcessKey:
    found = read_process(popen.pid)
    assert found is not None
    return found.key


def open_pidfds() -> int:
    links = [entry.readlink() for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return sum("pidfd" in str(link) for link in links)


def test_a_watched_process_that_is_killed_wakes_us_once() -> None:
    async def kill_one() -> int:
        told = 0
        woken = asyncio.Event()

        def tell() -> None:
            nonlocal told
            told += 1
            woken.set()

        with subprocess.Popen(["sleep", "60"]) as sleeper:
            deaths = ExitWatcher(tell)
            deaths.watch([key_of(sleeper)])
            sleeper.kill()
            async with asyncio.timeout(10):
                await woken.wait()
            await asyncio.sleep(0.05)
        deaths.close()
        return told

    assert asyncio.run(kill_one()) == 1


def test_what_is_watched_no_more_costs_no_descriptor() -> None:
    async def watch_and_leave() -> tuple[int, int]:
        deaths = ExitWatcher(lambda: None)
        with subprocess.Popen(["sleep", "60"]) as sleeper:
            deaths.watch([key_of(sleeper)])
            deaths.watch([key_of(sleeper)])
            watched = open_pidfds()
            deaths.watch([])
            left = open_pidfds()
            sleeper.kill()
        return watched, left

    assert asyncio.run(watch_and_leave()) == (1, 0)


def test_a_process_that_is_gone_already_is_left_to_the_next_look() -> None:
    async def watch_gone() -> None:
        ExitWatcher(lambda: None).watch([ProcessKey(2**22 + 1, 1)])

    asyncio.run(watch_gone())


def test_children_drivers_and_their_browsers_are_watched_not_all_that_a_browser_starts() -> None:
    members = (
        process(40, name="chromedriver", parent=20),
        process(41, parent=40),
        process(42, parent=41),
        process(50, parent=1),
        process(51, parent=20, state="Z"),
    )
    keys = {key.pid for key in find_watched(snapshot(child(*members)))}
    assert keys == {CHILD.pid, 40, 41, 50}
