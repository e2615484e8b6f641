"""`recyclery leaks --trace` beside a real supervisor: from the order to the child's leave."""

import json
import os
import signal
import subprocess
import sys

from celery import Celery

from support.supervised import Supervised, supervised
from support.terminal import hear_interrupts
from support.waiting import wait_for

WORDS = "sample_app.leave_words"


def leaks(running: Supervised, *arguments: str) -> "subprocess.Popen[str]":
    """Run `recyclery leaks ARGUMENTS` beside the supervisor."""
    directory = str(running.runtime_dir)
    return subprocess.Popen(
        [sys.executable, "-m", "recyclery", "leaks", *arguments],
        env={**os.environ, "RECYCLERY_RUNTIME_DIR": directory, "RECYCLERY_STATE_DIR": f"{directory}/state"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,  # noqa: PLW1509  # the child of a test
    )


def test_a_traced_task_is_told_by_line_and_the_child_that_traced_leaves(
    fresh_redis: str, sender: Celery
) -> None:
    with supervised("--pool", "slow", redis_url=fresh_redis) as running:
        running.wait_until_ready("slow")

        def leave_words() -> int:
            pid: int = sender.send_task(WORDS, (2_000,), queue="low").get(timeout=60)
            return pid

        unknown = leaks(running, "--trace", "sample_app.missing", "--pool", "slow")
        assert "is no task of this worker's app" in unknown.communicate(timeout=60)[1]
        assert unknown.returncode == 1
        tracing = leaks(running, "--trace", WORDS, "--pool", "slow", "--runs", "2", "--json")
        while tracing.poll() is None:
            leave_words()
        out, err = tracing.communicate(timeout=60)
        assert (tracing.returncode, "run 2 of 2" in err) == (0, True)
        report = json.loads(out)
        assert (report["pool"], report["runs"], report["judged"]) == ("slow", 2, 2)
        place = report["sites"][0]["frames"][0]
        assert (place["file"].endswith("sample_app.py"), bool(place["function"])) == (True, True)
        # The tracing ends with the child: its successor is a common one.
        wait_for(lambda: leave_words() != report["pid"], "a successor takes tasks")
        assert f"dismiss slow/{report['pid']}" in running.output
        stopped = leaks(running, "--trace", WORDS, "--pool", "slow")
        said = stopped.stderr
        assert said is not None
        wait_for(lambda: "waits for the task" in said.readline(), "a second one begins")
        stopped.send_signal(signal.SIGINT)
        assert "traces no more" in stopped.communicate(timeout=60)[1]
        assert stopped.returncode == 130
        running.wait_for_line("dismiss slow/", count=2)
        assert not list(running.runtime_dir.glob("trace-*"))
        assert running.stop() == 0
