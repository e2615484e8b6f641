"""What waits for the task that runs alone, and for how long."""

from collections.abc import Iterator

import pytest
from celery.worker import state

from recyclery_worker.parking import alone
from recyclery_worker.parking.alone import ALONE_SECONDS, Alone


class InHand:
    """What a worker has of a task, as far as waiting asks."""

    def __init__(self, name: str, parent: str | None = None) -> None:
        self.id = self.name = name
        self.parent_id = parent
        state.reserved_requests.add(self)


class Clock:
    """Goes when it is told to."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(alone, "time", clock)
    yield clock
    state.reserved_requests.clear()
    state.active_requests.clear()


def test_a_task_that_runs_alone_waits_for_the_others_and_they_for_it(clock: Clock) -> None:
    lone, other, running = InHand("lone"), InHand("other"), InHand("running")
    held = Alone()
    assert not held.holds_up(other)
    state.active_requests.add(running)
    assert held.holds_up(lone, is_suspect=True)
    assert held.holds_up(lone, is_suspect=True)
    assert held.holds_up(other)
    state.active_requests.discard(running)
    assert not held.holds_up(lone, is_suspect=True)
    assert held.holds_up(other)
    state.reserved_requests.discard(lone)
    assert not held.holds_up(other)


def test_what_the_lone_task_has_called_passes_and_what_that_has_called_too(clock: Clock) -> None:
    lone, held = InHand("lone", "root"), Alone()
    assert held.holds_up(lone, is_suspect=True)
    assert not held.holds_up(lone, is_suspect=True)
    assert held.holds_up(InHand("beside", "root"))
    assert not held.holds_up(InHand("child", "lone"))
    assert not held.holds_up(InHand("grandchild", "child"))
    # Of two that may both be guilty nobody would know which one is.
    assert held.holds_up(InHand("suspect", "lone"), is_suspect=True)


def test_the_lone_task_waits_for_the_others_for_a_minute_and_they_for_it_for_another(clock: Clock) -> None:
    lone, other, running, held = InHand("lone"), InHand("other"), InHand("running"), Alone()
    state.active_requests.add(running)
    assert held.holds_up(lone, is_suspect=True)
    clock.seconds += ALONE_SECONDS
    # It looks only now and then: until it has begun the others wait.
    assert held.holds_up(other)
    assert not held.holds_up(lone, is_suspect=True)
    assert held.holds_up(other)
    clock.seconds += ALONE_SECONDS
    assert not held.holds_up(other)
