"""One tick, without a process: what comes after what, and what a failure of one part does to the others."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs

from recyclery.decide.actions import Action, Outcome
from recyclery.decide.policy import decide
from recyclery.decide.policy_state import PolicyState
from recyclery.governor import __main__ as service
from recyclery.governor import loop
from recyclery.governor.executor import Executor
from recyclery.governor.loop import Governor
from recyclery.observe.snapshot import ChildState, OpenSessions, Orphans, Owner, Snapshot
from support.snapshots import AT, SETTINGS, board, child, process, slow_view, snapshot

FIRST, SECOND = Owner("slow", 20, 2000), Owner("slow", 21, 2100)
REAP_FIRST, REAP_SECOND = "reap orphans of slow/20", "reap orphans of slow/21"


def left_by(*owners: Owner) -> tuple[Orphans, ...]:
    """What dead children left: a process each."""
    return tuple(Orphans(owner, (process(owner.pid + 100, session=owner.pid),)) for owner in owners)


ORPHANS = snapshot(pools=(slow_view(),), orphans=left_by(FIRST, SECOND))


class World:
    """A governor whose snapshots are made by hand and whose actions are written down, all of it in `steps`."""

    def __init__(self, seen: Snapshot = ORPHANS) -> None:
        self.steps: list[str] = []
        self.seen = seen
        self.recorded: list[tuple[str, bool]] = []
        self.perform: Callable[[Action], Any] = lambda action: None
        self.look: Callable[[], None] = lambda: None
        self.note: Callable[[], None] = lambda: None
        self.states: dict[Owner, ChildState] = {}
        self.woken = asyncio.Event()
        self.board = board()
        observer: Any = SimpleNamespace(
            observe=self._observe,
            read_floor=lambda: None,
            browser_files=SimpleNamespace(postpone_removal=lambda folders, at: None),
        )
        inbox: Any = SimpleNamespace(
            poll_programs=self._nothing,
            begin_polling_workers=lambda known: None,
            views=dict,
            states=self.states,
            workers=SimpleNamespace(stats={}),
            forget_session=lambda owner, session: self.steps.append(f"forget {session}"),
            hurry=lambda: None,
        )
        recorder: Any = SimpleNamespace(
            record_snapshot=self._look, record_action=self._note, apply_settings=lambda settings: None
        )
        anything: Any = SimpleNamespace(
            hurry=lambda: None, begin=lambda at: None, watch=lambda keys: None, beat=lambda states: None
        )
        executor = Executor(self.board, observer, inbox, recorder, self.woken.set, self._perform)
        self.governor = Governor(
            board=self.board,
            observer=observer,
            inbox=inbox,
            executor=executor,
            recorder=recorder,
            sweeper=anything,
            exits=anything,
            heart=anything,
            woken=self.woken,
            clock=lambda: AT,
        )

    async def _nothing(self) -> None:
        pass

    def _observe(self, views: object, states: object, late: float) -> Snapshot:
        self.steps.append("observe")
        return self.seen

    def _look(self, seen: Snapshot, state: PolicyState, settings: object) -> None:
        self.look()

    def _note(self, action: Action, outcome: Outcome, seen: Snapshot) -> None:
        self.note()
        self.recorded.append((action.summary, outcome.done))

    async def _perform(
        self, action: Action, runtime_dir: Path, slots: Mapping[str, str], read_floor: object
    ) -> Outcome:
        self.steps.append(action.summary)
        outcome = self.perform(action)
        if asyncio.iscoroutine(outcome):
            outcome = await outcome
        return outcome or Outcome(done=True, line=f"{action.summary}; done")


def test_a_tick_observes_then_decides_then_acts_one_action_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()

    def decide_aloud(seen: Snapshot, state: PolicyState, settings: Any) -> list[Action]:
        world.steps.append("decide")
        return decide(seen, state, settings)

    async def perform(action: Action) -> None:
        await asyncio.sleep(0)
        world.steps.append(f"{action.summary} ends")

    monkeypatch.setattr(loop, "decide", decide_aloud)
    world.perform = perform
    asyncio.run(world.governor.tick())
    assert world.steps == [
        "observe",
        "decide",
        *(REAP_FIRST, f"{REAP_FIRST} ends"),
        *(REAP_SECOND, f"{REAP_SECOND} ends"),
    ]


def test_what_a_tick_saw_and_did_is_known_after_it() -> None:
    world = World()
    asyncio.run(world.governor.tick())
    assert world.board.snapshot is ORPHANS
    assert world.board.ledger.state.counters.reaped == 2
    lines = [event.text for event in world.board.events.newest_first()]
    assert lines == [f"{REAP_SECOND}; done", f"{REAP_FIRST}; done"]
    assert world.recorded == [(REAP_FIRST, True), (REAP_SECOND, True)]


def test_an_action_that_is_not_done_is_told_and_the_later_ones_are_carried_out() -> None:
    world = World()
    world.perform = lambda action: (
        Outcome(done=False, line=f"{action.summary}; not done") if action.summary == REAP_FIRST else None
    )
    asyncio.run(world.governor.tick())
    assert world.recorded == [(REAP_FIRST, False), (REAP_SECOND, True)]
    assert [event.done for event in world.board.events.newest_first()] == [True, False]


def test_an_action_that_raises_is_logged_and_recorded_and_the_later_ones_are_carried_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()

    def perform(action: Action) -> None:
        if action.summary == REAP_FIRST:
            raise KeyError("slow")

    world.perform = perform
    asyncio.run(world.governor.tick())
    assert world.recorded == [(REAP_FIRST, False), (REAP_SECOND, True)]
    failed = world.board.events.newest_first()[-1]
    assert (failed.text, failed.done) == (f"{REAP_FIRST}; failed: KeyError('slow')", False)
    (traceback,) = (record for record in caplog.records if record.exc_info)
    assert (traceback.levelno, traceback.getMessage()) == (logging.ERROR, REAP_FIRST)


@pytest.mark.parametrize("part", ["look", "note"])
def test_a_history_that_fails_stops_no_tick(part: str, caplog: pytest.LogCaptureFixture) -> None:
    world = World()

    def fail() -> None:
        raise RuntimeError("the history")

    setattr(world, part, fail)
    asyncio.run(world.governor.tick())
    assert world.steps == ["observe", REAP_FIRST, REAP_SECOND]
    assert world.board.ledger.state.counters.reaped == 2
    assert "the history failed" in caplog.text


def test_alerts_or_http_that_fail_are_logged_and_begin_again_while_ticks_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "RESTART_SERVICE_SECONDS", 0.0)
    world = World()

    async def fail_once() -> None:
        world.steps.append("begin")
        if world.steps.count("begin") == 1:
            raise RuntimeError("no alerts")

    async def run() -> None:
        background = asyncio.create_task(service.keep_running("alerts", fail_once))
        await world.governor.tick()
        await background

    asyncio.run(run())
    assert [step for step in world.steps if step != "begin"] == ["observe", REAP_FIRST, REAP_SECOND]
    assert world.steps.count("begin") == 2
    assert "alerts failed" in caplog.text
    assert "no alerts" in caplog.text


def test_a_governor_that_cannot_read_the_events_of_pid_1_ends_after_a_last_tick_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def read_events() -> AsyncIterator[str]:
        yield "PROCESS_STATE_EXITED"
        raise ValueError("no header")

    monkeypatch.setattr(service, "read_events", read_events)
    world = World(snapshot())

    async def run() -> None:
        events = asyncio.create_task(service.follow_events(world.governor))
        async with asyncio.timeout(10):
            await world.governor.run()
        await events

    with pytest.raises(ValueError, match="no header"):
        asyncio.run(run())
    assert world.steps == ["observe", "observe"]


def test_a_command_waits_until_the_tick_is_over_and_a_tick_until_the_command_is() -> None:
    world = World()
    going_on = asyncio.Event()

    async def perform(action: Action) -> None:
        await going_on.wait()
        world.steps.append(f"{action.summary} ends")

    def choose(seen: Snapshot) -> Iterable[Action]:
        world.steps.append("command")
        return decide(seen, world.board.ledger.state, SETTINGS)[:1]

    async def run() -> None:
        tick = asyncio.create_task(world.governor.tick())
        await asyncio.sleep(0)
        command = asyncio.create_task(world.governor.act_now(choose))
        later = asyncio.create_task(world.governor.tick())
        await asyncio.sleep(0.01)
        assert world.steps == ["observe", REAP_FIRST]
        going_on.set()
        await asyncio.gather(tick, command, later)

    world.perform = perform
    asyncio.run(run())
    both = [REAP_FIRST, f"{REAP_FIRST} ends", REAP_SECOND, f"{REAP_SECOND} ends"]
    assert world.steps == ["observe", *both, "observe", "command", *both[:2], "observe", *both]


def test_the_end_of_a_session_is_not_waited_for_and_not_asked_for_twice() -> None:
    world = World(snapshot(pools=(slow_view(),), open_sessions=(OpenSessions(FIRST, ("s1",)),)))
    ended = asyncio.Event()

    async def perform(action: Action) -> None:
        await ended.wait()

    async def run() -> None:
        await world.governor.tick()
        assert (world.steps, world.recorded) == (["observe", "forget s1"], [])
        ended.set()
        await world.governor.executor.finish()

    world.perform = perform
    asyncio.run(run())
    assert world.board.ledger.state.counters.grid_ended == 1


def test_a_kill_has_the_next_tick_come_at_once() -> None:
    world = World(snapshot(child()))
    asyncio.run(world.governor.tick())
    assert not world.woken.is_set()
    world.seen = ORPHANS
    asyncio.run(world.governor.tick())
    assert world.woken.is_set()


def test_a_change_of_the_settings_is_there_for_the_next_decision() -> None:
    world = World(snapshot())
    slow = structs.replace(SETTINGS.pools[1], max_tasks_per_child=3)
    settings = structs.replace(SETTINGS, pools=(SETTINGS.pools[0], slow))
    world.governor.apply_settings(settings)
    assert (world.board.settings, world.board.ledger.state.changed) == (settings, {"slow"})
    assert world.woken.is_set()
