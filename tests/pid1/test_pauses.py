"""A worker that was ready and keeps dying is started after longer and longer pauses, and is unhealthy."""

import json
from pathlib import Path

import pytest

from recyclery.common.pool_state import PoolState
from recyclery.config.paths import heartbeat_file
from recyclery.observe.snapshot import PoolView
from recyclery.pid1.processes import next_pause
from support.stood_in import READY, Start
from support.waiting import wait_for

BECOMES_READY = 'printf $$ > "$RECYCLERY_RUNTIME_DIR/ready-$RECYCLERY_SLOT"; echo up'


def test_a_worker_that_keeps_dying_after_it_was_ready_is_started_after_longer_pauses_and_the_others_go_on(
    start: Start,
) -> None:
    commands = {"slow": f"{BECOMES_READY}; exit 3", "fast": READY}
    with start(commands=commands, environment={"RECYCLERY_MAX_DEATHS": "2"}) as running:
        running.wait_for_line("slow | up", count=2)
        running.wait_for_line(
            "slow keeps dying (2 deaths in 300 s): it is started again in 5 s; the last time it ended with "
            "status 3"
        )
        beat = heartbeat_file(running.runtime_dir)
        wait_for(beat.exists, "the first heartbeat")
        wait_for(lambda: json.loads(beat.read_text())["pools"]["slow"] == "backoff", "it is unhealthy")
        running.wait_for_line("slow keeps dying (3 deaths in 300 s): it is started again in 10 s")
        assert "fast | bye" not in running.lines
        assert running.stop() == 0


def test_a_worker_that_ends_with_0_at_once_is_started_for_ever_where_it_was_ready(
    start: Start, tmp_path: Path
) -> None:
    once = tmp_path / "once"
    command = f"if [ ! -e {once} ]; then touch {once}; {BECOMES_READY}; fi; echo up; exit 0"
    with start(commands={"slow": command}, environment={"RECYCLERY_MAX_DEATHS": "1"}) as running:
        running.wait_for_line("slow | up", count=4)
        assert running.stop() == 0


def test_a_pid_that_another_worker_had_written_does_not_make_a_worker_ready(start: Start) -> None:
    command = 'printf 1 > "$RECYCLERY_RUNTIME_DIR/ready-$RECYCLERY_SLOT"; exit 3'
    with start(commands={"slow": command}, environment={"RECYCLERY_MAX_DEATHS": "1"}) as running:
        assert running.wait() == 70


def test_a_worker_that_keeps_dying_is_ill_while_it_runs_too() -> None:
    assert PoolView("slow", PoolState.RUNNING, 7, keeps_dying=True).reported_state is PoolState.BACKOFF
    assert not PoolView("slow", PoolState.STARTING, 7, keeps_dying=True).reported_state.is_healthy


@pytest.mark.parametrize(
    ("last", "up", "keeps_dying", "then"),
    [
        (0, 1, False, 0),
        (0, 1, True, 5),
        (5, 1, True, 10),
        (40, 1, True, 60),
        (60, 59, False, 60),
        (60, 60, False, 0),
    ],
)
def test_a_pause_doubles_up_to_a_minute_and_is_forgotten_after_a_minute_without_a_death(
    last: float, up: float, keeps_dying: bool, then: float
) -> None:
    assert next_pause(last, up, keeps_dying=keeps_dying) == then
