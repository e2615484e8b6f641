"""All that these tests take from the product: where something is renamed, this file alone changes."""

import dataclasses
import time
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import structs

from recyclery.act.outcome import Outcome
from recyclery.decide.actions import Action, Preempt, Reap
from recyclery.history.reader import open_history
from recyclery.history.recorder import Recorder
from recyclery.history.records import ActionRecord, Parts, RunRecord
from recyclery.history.retention import Keeping, tidy
from recyclery.history.store import Store, stamp
from recyclery.leaks.document import LeakReport
from recyclery.leaks.page import MARKS
from recyclery.leaks.report import RECYCLES, gather
from recyclery.observe.snapshot import Owner
from recyclery.serve.page.files import read_file
from recyclery_worker.link import ChildReport
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


def record_everything(folder: Path) -> Path:
    """Have each action noted in a history, and runs that end in every way; return its file."""
    recorder = Recorder(structs.replace(SETTINGS, state_dir=folder))
    done, _died, preempted, killed = children = [CHILD._replace(pid=pid) for pid in (20, 21, 22, 23)]
    for owner in children:
        recorder.hear(child_report(owner, 0, "task"))
    recorder.hear(child_report(done, 1, None))
    for moment, living in enumerate([children, [done, preempted, killed], [done, killed], [done]]):
        # In the last look one is gone as the kernel has killed.
        look(recorder, living, at=AT + moment, oom_kills=moment // 3)
        if living == [done, preempted, killed]:
            recorder.note(Preempt(preempted, (), "x"), Outcome(True, "x"), snapshot())
    for action in actions():
        recorder.note(action, Outcome(True, "x"), snapshot())
    recorder.close()
    return folder / "history.db"


def child_report(owner: Owner, tasks_done: int, task: str | None) -> ChildReport:
    """Return what a child says as its first task begins or ends."""
    return ChildReport(
        pool=owner.pool,
        pid=owner.pid,
        start_ticks=owner.start_ticks,
        tasks_done=tasks_done,
        task_id=task,
        task_name=task,
        first_task_started=80.0,
        last_task_ended=90.0 if tasks_done else None,
        sent=90.0,
        ended={"task": tasks_done} if tasks_done else {},
    )


def look(recorder: Recorder, living: Iterable[Owner], *, at: float, oom_kills: int) -> None:
    """Have the recorder see these children."""
    seen = snapshot(*(child(owner=owner, task_id="task", task_name="task") for owner in living))
    container = dataclasses.replace(seen.container, oom_kills=oom_kills)
    recorder.look(dataclasses.replace(seen, container=container, at=at), LEARNED, SETTINGS)


def sum_up(history: Path) -> None:
    """Do with a history what is done each minute."""
    store = Store(history)
    tidy(store.connection, Keeping(), stamp(time.time()))
    store.close()


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
