"""What stands before a pool lets pass whatever is no task's request."""

from typing import Any

from recyclery_worker.parking.admission import Admission, park
from recyclery_worker.parking.records import open_dead_letters


def test_a_bundle_of_tasks_passes_as_it_is() -> None:
    started: list[Any] = []

    def apply_async(*args: Any, **options: Any) -> None:
        started.append((args, options))

    admission = Admission(apply_async, "slow@here", None, print, open_dead_letters, park)
    admission(sum, args=([],), callback=print)
    assert started == [((sum,), {"args": ([],), "callback": print})]
