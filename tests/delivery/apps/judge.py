"""Prints as JSON what our worker and `doctor` make of each app that is named: MODULE….

No broker is needed: the worker is the real one up to the moment when it would connect. Each app has a process
to itself, and each judge.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Here, as each process would import them again.
import celery.apps.worker
import celery.bin.celery
import celery.concurrency.asynpool  # noqa: F401
import kombu.transport.redis  # noqa: F401
from celery import signals

from recyclery.celery_app.routing import import_app
from recyclery.config.settings import BUILT_IN, Settings
from recyclery.doctor.application import app_findings, read_app
from recyclery_worker import plugin
from recyclery_worker.celery import main as run_worker

Answer = Callable[[object], None]


def judge_as_worker(name: str, answer: Answer) -> None:
    """Answer whether each task is late, and whether it is given back when its process dies."""

    def read(instance: Any, **_: Any) -> None:
        tasks = instance.app.tasks.items()
        answer({each: [task.acks_late, task.reject_on_worker_lost] for each, task in tasks})

    def read_last(**_: Any) -> None:
        signals.celeryd_after_setup.connect(read, weak=False)

    # It has read its app and set itself up, and would now start its pool and connect.
    plugin.install()
    signals.worker_init.connect(read_last, weak=False)
    sys.argv = ["celery", "-A", name, "worker", "-P", "custom", "-l", "error"]
    run_worker()


def judge_as_doctor(name: str, answer: Answer) -> None:
    """Answer which tasks it takes for early, and the level of what it says of that."""
    facts = read_app(import_app(name))
    settings = Settings(app=name, pools=BUILT_IN, runtime_dir=Path("/run/recyclery"))
    (finding,) = (each for each in app_findings(facts, settings) if each.name == "acknowledgement")
    answer({"early": facts.early_tasks, "level": finding.level})


def ask_apart(judge: Callable[[str, Answer], None], name: str) -> Any:
    """Return what a judge answers in a process of its own."""
    with tempfile.NamedTemporaryFile() as file:
        pid = os.fork()
        if pid == 0:

            def answer(found: object) -> None:
                Path(file.name).write_text(json.dumps(found))
                os._exit(0)

            # What the app prints is not ours.
            os.dup2(2, 1)
            try:
                judge(name, answer)
            finally:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0, f"{judge.__name__} of {name}"
        return json.load(file)


if __name__ == "__main__":
    judges = {"worker": judge_as_worker, "doctor": judge_as_doctor}
    judged = {name: {who: ask_apart(judges[who], name) for who in judges} for name in sys.argv[1:]}
    json.dump(judged, sys.stdout)
