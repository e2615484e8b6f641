"""What a child gets of our signals: nothing."""

import subprocess
import sys

# A parent that handles, ignores and blocks; it forks by the function that its argument names.
PARENT = """
import os, signal, sys, time
from recyclery.pid1.supervisord import fork_with_default_signals
fork = {"ours": fork_with_default_signals, "plain": os.fork}[sys.argv[1]]
"""
SHOW_STATE = """
for signum in (signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2, signal.SIGRTMAX):
    signal.signal(signum, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGALRM})
if fork() == 0:
    os.execvp("grep", ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])
time.sleep(0.5)
"""
KILL_BEFORE_EXEC = """
signal.signal(signal.SIGTERM, lambda *_: None)
pid = fork()
if pid == 0:
    time.sleep(0.3)
    os.execvp("sleep", ["sleep", "1"])
os.kill(pid, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def run(script: str, fork: str) -> str:
    """Run a parent with a way to fork; return what it and its child print."""
    command = [sys.executable, "-c", PARENT + script, fork]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def states(output: str) -> list[int]:
    """Return the masks that grep found."""
    return [int(line.split()[1], 16) for line in output.splitlines()]


def test_a_child_has_default_dispositions_and_an_empty_mask() -> None:
    assert states(run(SHOW_STATE, "ours")) == [0, 0]


def test_a_plain_fork_would_hand_them_on() -> None:
    blocked, ignored = states(run(SHOW_STATE, "plain"))
    assert blocked
    assert ignored


def test_a_term_that_comes_before_the_childs_exec_is_not_lost() -> None:
    assert run(KILL_BEFORE_EXEC, "ours") == "-15\n"


def test_a_plain_fork_would_lose_it() -> None:
    assert run(KILL_BEFORE_EXEC, "plain") == "0\n"
