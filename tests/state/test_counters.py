"""What is counted, and once."""

from recyclery.observe.snapshot import Owner, Process
from recyclery.state.counters import Counters

CHILD = Owner("slow", 20, 2000)


def process(pid: int, name: str = "chromium", parent: int = 1) -> Process:
    return Process(pid, pid * 100, parent, 20, "S", name)


def test_a_browser_that_took_a_second_kill_is_counted_once() -> None:
    counters = Counters()
    browser = [process(30, "chromedriver"), process(31, parent=30)]
    counters.count_reaped(CHILD, browser)
    counters.count_reaped(CHILD, browser[1:])
    assert counters.reaped == 1


def test_a_gone_child_is_counted_by_what_ended_it() -> None:
    counters = Counters(preempted={CHILD})
    others = [Owner("slow", pid, 1) for pid in (21, 22, 23)]
    counters.count_gone(CHILD, {}, ())
    counters.count_gone(others[0], {21: "asked"}, {others[0]})
    counters.count_gone(others[1], {22: "max_tasks"}, ())
    counters.count_gone(others[2], {}, ())
    assert counters.recycles["slow"] == {"preempt": 1, "budget": 1, "max_tasks": 1, "died": 1}
