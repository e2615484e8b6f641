"""All that these tests take from the product: where something is renamed, this file alone changes."""

import dataclasses
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import structs

from recyclery.decide.actions import Action, Outcome, Reap
from recyclery.history.reader import open_history
from recyclery.history.recorder import Recorder
from recyclery.history.records import ActionRecord, Parts, RunRecord
from recyclery.history.store import Store
from recyclery.leaks.document import LeakReport
from recyclery.leaks.page import MARKS
from recyclery.leaks.report import RECYCLES, gather
from recyclery.serve.page.files import read_file
from support.snapshots import AT, CHILD, LEARNED, MIB, SETTINGS, child, snapshot

ACTIONS: tuple[type[Any], ...] = typing.get_args(Action)
# By a field's type; what needs more than that, no action has.
STAND_INS: dict[Any, Any] = {
    "str": "x",
    "int": 1,
    "bool": False,
    "str | None": None,
    "Owner": CHILD,
    "Fell": None,
}


def actions() -> list[Any]:
    """Return one of each class of action, and of a reap one of each cause."""
    made = [
        action(**{field.name: STAND_INS.get(field.type, ()) for field in dataclasses.fields(action)})
        for action in ACTIONS
        if action is not Reap
    ]
    reaps = [Reap(cause, CHILD, (), "x") for cause in ("orphans", "leftovers", "strays", "runaway")]
    return [*made, *reaps]


def kinds_in_reports() -> set[str]:
    """Return the kinds of action that the leak report and its page ask for."""
    return {*RECYCLES, *MARKS}


def page_script() -> str:
    """Return the web page's script."""
    return read_file("page.js")


def record_actions(folder: Path) -> Path:
    """Have each action noted in a history, and an OOM kill seen; return its file."""
    recorder = Recorder(structs.replace(SETTINGS, state_dir=folder))
    seen = snapshot(child())
    for action in actions():
        recorder.note(action, Outcome(True, "x"), seen)
    recorder.look(seen, LEARNED, SETTINGS)
    killed = dataclasses.replace(seen.container, oom_kills=1)
    recorder.look(dataclasses.replace(seen, container=killed, at=AT + 1), LEARNED, SETTINGS)
    recorder.close()
    return folder / "history.db"


def report_on(folder: Path, kinds: Iterable[str]) -> LeakReport:
    """Return the leak report on a history of one task that grows, with actions of these kinds on its child."""
    path, runs = folder / "history.db", 30
    store = Store(path)
    for number in range(runs):
        before, after = Parts(python=50 * MIB + number * MIB), Parts(python=51 * MIB + number * MIB)
        store.write(
            [RunRecord(CHILD, {"task": 1}, number, 100.0 + number, 0.5, before, after, after, True, "done")]
        )
    store.write([ActionRecord(100.0 + runs, kind, "slow", CHILD, "task", "", "", True, 0, 0) for kind in kinds])
    store.close()
    with open_history(path) as history:
        return gather(history, path, 0, 1000.0)
