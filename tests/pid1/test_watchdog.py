"""A governor that dies or hangs comes back, and the pools never notice; nor do they when the clock is set."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from support.stood_in import DRAINING, READY, Start, StoodIn
from support.supervised import SUPPORT
from support.waiting import wait_for

JUMPING = str(SUPPORT / "jumping_clock")


def wait_for_another_governor(running: StoodIn, before: dict[str, int]) -> None:
    """Wait until another governor runs beside the same worker."""

    def is_there() -> bool:
        now = running.children()
        assert now["worker"] == before["worker"]
        return now.get("governor", before["governor"]) != before["governor"]

    wait_for(is_there, "another governor", seconds=40)


def test_a_governor_that_is_killed_is_started_again_and_the_pools_go_on(start: Start) -> None:
    with start(commands={"slow": READY}) as running:
        running.wait_for_line("watching slow")
        before = running.children()
        os.kill(before["governor"], signal.SIGKILL)
        wait_for_another_governor(running, before)
        running.wait_for_line("watching slow", count=2)
        assert running.stop() == 0


def test_a_governor_that_hangs_is_killed_and_started_again_and_the_pools_go_on(start: Start) -> None:
    with start(commands={"slow": READY}, environment={"RECYCLERY_WATCHDOG": "5"}) as running:
        running.wait_for_line("governor entered RUNNING")
        running.wait_for_line("watching slow")
        wait_for((running.runtime_dir / "heartbeat.json").exists, "it gave a sign")
        before = running.children()
        os.kill(before["governor"], signal.SIGSTOP)
        wait_for_another_governor(running, before)
        running.wait_for_line("watching slow", count=2)
        assert running.stop() == 0
        assert sum("no heartbeat" in line for line in running.lines) == 1


def test_a_pid_1_that_was_stopped_itself_does_not_blame_the_governor(start: Start) -> None:
    with start(commands={"slow": READY}, environment={"RECYCLERY_WATCHDOG": "5"}) as running:
        running.wait_for_line("watching slow")
        wait_for((running.runtime_dir / "heartbeat.json").exists, "it gave a sign")
        before = running.children()
        governor = before["governor"]
        # As a container is frozen: all of it, for longer than the watchdog waits.
        for pid in (running.pid, governor):
            os.kill(pid, signal.SIGSTOP)
        subprocess.run(["sleep", "7"], check=True)
        for pid in (running.pid, governor):
            os.kill(pid, signal.SIGCONT)
        running.send(signal.SIGUSR1)
        running.wait_for_line("cannot be reclaimed")
        assert running.children() == before
        assert "no heartbeat" not in running.output


def test_a_wall_clock_that_is_set_cuts_no_grace_short_and_blames_no_governor(
    start: Start, tmp_path: Path
) -> None:
    step, gate = tmp_path / "step", tmp_path / "gate"
    step.write_text("0")
    environment = {
        "GATE": str(gate),
        "STEP_SECONDS_FILE": str(step),
        "PYTHONPATH": f"{JUMPING}:{SUPPORT.parent}",
    }
    with start(commands={"slow": DRAINING}, environment=environment) as running:
        running.wait_for_line("watching slow")
        running.wait_for_line("slow entered RUNNING")
        running.send(signal.SIGTERM)
        running.wait_for_line("slow | draining")
        for seconds in ("7200", "-7200"):
            step.write_text(seconds)
            before = running.output.count("waiting for")
            wait_for(lambda: running.output.count("waiting for") > before, "its loop has gone on")  # noqa: B023
        gate.touch()
        assert running.wait() == 0
        assert "slow | drained" in running.lines
        assert "no heartbeat" not in running.output


def test_bare_supervisord_cuts_the_grace_short(tmp_path: Path) -> None:
    step, log = tmp_path / "step", tmp_path / "log"
    step.write_text("0")
    configuration = tmp_path / "supervisord.conf"
    configuration.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={log}\npidfile={tmp_path}/pid\n"
        "[program:slow]\ncommand=/bin/sh -c 'trap \"\" TERM; while :; do sleep 0.1; done'\n"
        "startsecs=1\nstopwaitsecs=600\nkillasgroup=true\n"
    )
    environment = os.environ | {"STEP_SECONDS_FILE": str(step), "PYTHONPATH": JUMPING}
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: log.exists() and "entered RUNNING" in log.read_text(), "it runs")
        process.terminate()
        wait_for(lambda: "waiting for slow to die" in log.read_text(), "it stops")
        step.write_text("7200")
        wait_for(lambda: "killing 'slow'" in log.read_text(), "it kills")
        assert process.wait(20) == 0
