"""The two slots of a pool at PID 1: a successor beside a worker, a drain and its deadline, deaths in either."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from recyclery.config.paths import supervisord_socket
from recyclery.observe.supervisord import call_supervisord
from support.stood_in import DRAINING, READY, STUBBORN, Start, StoodIn
from support.waiting import wait_for


def ask(running: StoodIn, method: str, slot: str) -> None:
    """Have PID 1 do something with a slot."""
    call_supervisord(supervisord_socket(running.runtime_dir), f"recyclery.{method}", slot)


def begin(running: StoodIn, slot: str) -> None:
    """Start what is in a slot."""
    call_supervisord(supervisord_socket(running.runtime_dir), "supervisor.startProcess", slot, False)


def state_of(running: StoodIn, slot: str) -> Any:
    """Return how the worker in a slot is."""
    workers = call_supervisord(supervisord_socket(running.runtime_dir), "recyclery.list_workers")
    return next(worker["state"] for worker in workers if worker["slot"] == slot)


def test_a_worker_that_is_told_to_leave_finishes_and_stays_away(start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    environment = {"GATE": str(gate)}
    command = f'if [ "$RECYCLERY_SLOT" = slow ]; then {DRAINING}; else {READY}; fi'
    with start("--grace", "1", commands={"slow": command}, environment=environment) as running:
        running.wait_for_line("slow | up")
        begin(running, "slow-b")
        running.wait_for_line("slow | up", count=2)
        ask(running, "leave", "slow")
        running.wait_for_line("slow | draining")
        assert (state_of(running, "slow"), state_of(running, "slow-b")) == ("draining", "starting")
        # Longer than the grace, which is for another end.
        running.wait_for_line("slow-b entered RUNNING")
        assert state_of(running, "slow") == "draining"
        gate.touch()
        wait_for(lambda: state_of(running, "slow") == "stopped", "it has left")
        configuration = str(running.runtime_dir / "supervisord.conf")
        control = [sys.executable, "-m", "supervisor.supervisorctl", "-c", configuration, "status"]
        told = subprocess.run(control, capture_output=True, text=True, timeout=30, check=False).stdout
        assert [line.split()[:2] for line in told.splitlines()] == [
            ["governor", "RUNNING"],
            ["slow", "STOPPED"],
            ["slow-b", "RUNNING"],
        ]
        assert running.stop() == 0


def test_a_worker_that_drains_for_too_long_is_killed_and_starts_anew_and_the_end_is_0(
    start: Start, tmp_path: Path
) -> None:
    been = tmp_path / "been"
    command = f"if [ -e {been} ]; then {READY}; else touch {been}; {STUBBORN}; fi"
    with start(commands={"slow": command}, environment={"RECYCLERY_DRAIN": "1"}) as running:
        running.wait_for_line("slow | up")
        ask(running, "renew", "slow")
        running.wait_for_line("slow: still not done 1 s after it was told to leave (drain_seconds): killed")
        running.wait_for_line("slow | up", count=2)
        assert running.stop() == 0


def test_a_stop_in_the_middle_of_a_handoff_drains_both_workers_within_the_one_grace(
    start: Start, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with start(commands={"slow": DRAINING}, environment={"GATE": str(gate)}) as running:
        running.wait_for_line("slow | up")
        begin(running, "slow-b")
        running.wait_for_line("slow | up", count=2)
        ask(running, "leave", "slow")
        running.wait_for_line("slow | draining")
        running.send(15)
        running.wait_for_line("slow | draining", count=2)
        gate.touch()
        assert running.wait() == 0
        assert sum(line == "slow | drained" for line in running.lines) == 2


def test_a_drain_that_outlasts_the_grace_of_a_stop_is_killed_and_it_ends_with_1(start: Start) -> None:
    with start("--grace", "1", commands={"slow": STUBBORN}) as running:
        running.wait_for_line("slow | up")
        ask(running, "renew", "slow")
        assert state_of(running, "slow") == "draining"
        assert running.stop(seconds=15) == 1


def test_a_successor_that_does_not_stay_up_is_not_tried_again_and_is_no_death(
    start: Start, tmp_path: Path
) -> None:
    # Not even when the worker dies later: what ended after 5 s supervisord would start again.
    command = (
        'echo "up in $RECYCLERY_SLOT"; '
        'if [ "$RECYCLERY_SLOT" = slow-b ]; then sleep $(cat $SECONDS_UP); exit 3; fi; '
        f"if [ -e {tmp_path}/die ]; then {READY}; fi; until [ -e {tmp_path}/die ]; do sleep 0.1; done; exit 3"
    )
    seconds_up = tmp_path / "seconds"
    environment = {"RECYCLERY_MAX_DEATHS": "2", "SECONDS_UP": str(seconds_up)}
    with start(commands={"slow": command}, environment=environment) as running:
        running.wait_for_line("slow entered RUNNING")
        for count, seconds in enumerate(("0.3", "6"), 1):
            seconds_up.write_text(seconds)
            begin(running, "slow-b")
            running.wait_for_line("slow | up in slow-b", count=count)
            wait_for(lambda: state_of(running, "slow-b") == "stopped", "it is left alone")
        (tmp_path / "die").touch()
        running.wait_for_line("slow | up in slow", count=4)
        assert state_of(running, "slow-b") == "stopped"
        assert running.stop() == 0
        assert sum(line == "slow | up in slow" for line in running.lines) == 2


def test_deaths_in_both_slots_are_the_pools_and_a_worker_with_a_successor_is_not_started_again(
    start: Start, tmp_path: Path
) -> None:
    command = (
        f'echo "up in $RECYCLERY_SLOT"; until [ -e {tmp_path}/$RECYCLERY_SLOT ]; do sleep 0.1; done; exit 3'
    )
    with start(commands={"slow": command}, environment={"RECYCLERY_MAX_DEATHS": "2"}) as running:
        running.wait_for_line("slow entered RUNNING")
        begin(running, "slow-b")
        running.wait_for_line("slow | up in slow-b")
        (tmp_path / "slow").touch()
        wait_for(lambda: state_of(running, "slow") == "stopped", "it died")
        (tmp_path / "slow-b").touch()
        assert running.wait() == 70
        assert "slow does not stay up (2 deaths in 300 s): giving up" in running.output
        assert sum(line == "slow | up in slow" for line in running.lines) == 1


def test_the_last_worker_that_dies_is_started_again_in_its_slot(start: Start, tmp_path: Path) -> None:
    once = tmp_path / "once"
    command = f'echo "up in $RECYCLERY_SLOT"; if [ -e {once} ]; then rm {once}; exit 3; fi; {READY}'
    with start(commands={"slow": command}) as running:
        running.wait_for_line("slow | up in slow")
        begin(running, "slow-b")
        running.wait_for_line("slow | up in slow-b")
        ask(running, "leave", "slow")
        wait_for(lambda: state_of(running, "slow") == "stopped", "it has left")
        once.touch()
        ask(running, "renew", "slow-b")
        # The new one died, and one more came.
        running.wait_for_line("slow | up in slow-b", count=3)
        assert state_of(running, "slow") == "stopped"
        assert running.stop() == 0
