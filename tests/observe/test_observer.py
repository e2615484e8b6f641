"""What one look carries over to the next, and what dead children left open elsewhere."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from recyclery.config.settings import BUILT_IN, Settings
from recyclery.observe.observer import Observer, find_open_sessions
from recyclery.observe.processes import Markers
from recyclery.observe.snapshot import ChildState, OpenSessions, Owner, Snapshot
from support.snapshots import CHILD, process
from support.waiting import wait_for

DEAD = Owner("slow", 2**22 + 1, 7)


def test_a_browser_keeps_its_owner_when_nothing_but_the_past_tells_it(false_browser: str) -> None:
    settings = Settings(app="app", pools=BUILT_IN, runtime_dir=Path("/run"))
    observer = Observer(settings=settings, markers=Markers("run1"))
    marker = {"RECYCLERY_CHILD": f"run1/{DEAD.pool}/{DEAD.pid}/{DEAD.start_ticks}"}
    starts = (
        f"import subprocess as s;p=s.Popen([{false_browser!r},'600'],env={{}});print(p.pid,flush=True);p.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starts], env=marker, stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        browser = int(parent.stdout.readline())

        def owned() -> bool:
            seen: Snapshot = observer.observe({}, {})
            return browser in {member.pid for left in seen.orphans for member in left.processes}

        try:
            wait_for(owned, "it is found by its parent")
            parent.kill()
            parent.wait()
            assert owned()
        finally:
            os.kill(browser, signal.SIGKILL)


def test_only_what_a_dead_child_had_open_elsewhere_is_told() -> None:
    living = process(CHILD.pid, name="python", started=20.0)
    assert living.key == (CHILD.pid, CHILD.start_ticks)
    states = {
        CHILD: ChildState(remote=("a1",)),
        DEAD: ChildState(remote=("b2", "c3")),
        Owner("slow", 30, 1): ChildState(),
    }
    assert find_open_sessions([living], states) == (OpenSessions(DEAD, ("b2", "c3")),)


def test_a_child_that_is_defunct_or_whose_pid_another_has_is_dead() -> None:
    states = {CHILD: ChildState(remote=("a1",))}
    defunct = process(CHILD.pid, name="python", started=20.0, state="Z")
    another = process(CHILD.pid, name="python", started=99.0)
    for found in (defunct, another):
        assert find_open_sessions([found], states) == (OpenSessions(CHILD, ("a1",)),)
