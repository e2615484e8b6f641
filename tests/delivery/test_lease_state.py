"""What a pool child asks before it begins a task."""

import os
import threading
from typing import Any

import pytest
from celery.exceptions import Ignore

from recyclery_worker.delivery.lease import LeaseState, check_lease
from recyclery_worker.link import now

JOB: tuple[str, Any] = ("TASK", (7, None, print, ("name", "id"), {}))


def expired() -> LeaseState:
    """Return a lease that has run out, as a child of its main process sees it."""
    standing = LeaseState()
    standing._main_pid = os.getppid()
    standing.set_valid_until(now() - 1)
    return standing


def after(seconds: float, note: object, *args: float) -> threading.Timer:
    assert callable(note)
    timer = threading.Timer(seconds, note, args)
    timer.start()
    return timer


def test_before_there_is_a_lease_all_may_begin() -> None:
    assert LeaseState().wait_until_known()


def test_a_valid_lease_lets_a_task_begin() -> None:
    standing = expired()
    standing.set_valid_until(now() + 60)
    assert standing.wait_until_known()


def test_a_child_waits_until_the_lease_is_renewed() -> None:
    standing = expired()
    timer = after(0.1, standing.set_valid_until, now() + 60)
    assert standing.wait_until_known()
    assert timer.finished.is_set()


def test_a_child_waits_until_the_lease_is_known_to_be_lost() -> None:
    standing = expired()
    timer = after(0.1, standing.set_lost)
    assert not standing.wait_until_known()
    assert timer.finished.is_set()


def test_where_redis_is_away_a_task_may_begin() -> None:
    standing = expired()
    after(0.1, standing.set_unanswered, now() + 60)
    assert standing.wait_until_known()


def test_a_child_waits_although_redis_was_away_earlier() -> None:
    standing = expired()
    standing.set_unanswered(now())
    timer = after(0.1, standing.set_lost)
    assert not standing.wait_until_known()
    assert timer.finished.is_set()


def test_a_child_whose_main_process_is_gone_leaves() -> None:
    standing = expired()
    standing._main_pid = 0
    with pytest.raises(SystemExit):
        standing.wait_until_known()


def test_a_forked_child_sees_later_changes_of_the_lease() -> None:
    standing = LeaseState()
    standing.set_valid_until(now() - 1)
    child = os.fork()
    if child == 0:
        os._exit(0 if not standing.wait_until_known() else 1)
    standing.set_lost()
    assert os.waitpid(child, 0)[1] == 0


def test_a_job_of_a_lost_lease_is_replaced_by_a_refusal() -> None:
    standing = expired()
    standing.set_lost()
    kind, (job, number, function, args, kwargs) = check_lease(standing, lambda: JOB)()
    assert (kind, job, number) == ("TASK", 7, None)
    with pytest.raises(Ignore):
        function(*args, **kwargs)


def test_a_job_of_a_valid_lease_and_no_job_pass_unchanged() -> None:
    assert check_lease(LeaseState(), lambda: JOB)() is JOB
    assert check_lease(LeaseState(), lambda: None)() is None
