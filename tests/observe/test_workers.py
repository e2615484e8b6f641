"""What workers say of themselves, beside what they were told meanwhile."""

from pathlib import Path

from msgspec.structs import replace

from recyclery.observe.workers import Workers
from recyclery_worker.link import WorkerStat, now
from support.snapshots import slow_view

BEFORE = now()
HELD = WorkerStat(
    pool="slow", pid=10, node="slow@host", concurrency=1, max_tasks_per_child=10, retires=True, lack="",
    children=[], departures=[], sent=BEFORE, holding=True,
)  # fmt: skip


def workers(*stats: WorkerStat) -> Workers:
    """Workers of which these were heard, one after the other."""
    heard = Workers(Path("/nowhere"), lambda: True)
    for stat in stats:
        heard.update({"slow": stat})
    return heard


def test_an_answer_from_before_a_worker_was_told_something_does_not_bring_the_old_state_back() -> None:
    heard = workers(HELD)
    heard.expect("slow", holding=False)
    heard.expect("slow", max_tasks_per_child=5)
    heard.update({"slow": HELD})
    view = heard.describe(slow_view(holding=None))
    assert (view.holding, view.max_tasks_per_child) == (False, 5)


def test_an_answer_from_after_that_is_believed() -> None:
    heard = workers(HELD)
    heard.expect("slow", holding=False)
    heard.update({"slow": replace(HELD, sent=now() + 1)})
    assert heard.describe(slow_view(holding=None)).holding
