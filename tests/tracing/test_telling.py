"""What grew, which runs it belongs to, and how a person is told: over values made by hand."""

from pathlib import Path

import pytest

from recyclery.cli.parser import main
from recyclery.decide.memory_model import update_trackers
from recyclery.decide.retire import dismiss_traced
from recyclery.leaks.trace_command import Chosen, build_trace_report, format_trace, function_at
from recyclery_worker.tracing.sites import Growth, Held, Site, StackFrame, TracedRuns, changes_between
from support.snapshots import AT, CHILD, child, policy_state, slow_view, snapshot

LEAK = Site(
    frames=[
        StackFrame("/app/" + "long/" * 20 + "models.py", 58, "keep"),
        StackFrame("/app/tasks.py", 31, "scrape"),
    ],
    bytes_per_run=5_000_000,
    count_per_run=1.5,
    grew_in=5,
)


def seen(*sites: Site, tool: str = "tracemalloc") -> TracedRuns:
    return TracedRuns(
        pid=7, tool=tool, warm_up_seconds=[9.0], seconds=[2.0] * 5, judged=5, sites=list(sites), over=True
    )


def page(*sites: Site, tool: str = "tracemalloc") -> str:
    return format_trace(build_trace_report(Chosen("slow", "app.scrape", 0.8), seen(*sites, tool=tool), ""))


def test_a_site_that_grew_in_most_runs_counts_and_one_that_grew_once_does_not() -> None:
    growth: Growth[str] = Growth()
    for leak, once in ((2000, 0), (2000, 90_000), (2000, 0)):
        growth.add([("leak", Held(leak, 1)), ("once", Held(once, 1))])
    sites = growth.sites(lambda place: [StackFrame(place, 1)])
    found = [(site.frames, site.bytes_per_run, site.grew_in) for site in sites]
    assert found == [([StackFrame("leak", 1)], 2000, 3)]


def test_memory_that_replaces_that_of_the_previous_run_is_no_growth() -> None:
    held = {"cache": Held(1000, 1)}
    assert list(changes_between(held, held)) == []
    assert list(changes_between(held, {})) == [("cache", Held(-1000, -1))]


def test_a_run_whose_pauses_have_no_timestamp_is_left_out() -> None:
    read_memray = pytest.importorskip("recyclery_worker.tracing.memray_tracer")
    span = read_memray.RunTimes(pause=100, begun=150, ended=200, paused=250)
    assert read_memray.find_window(span, [90, 120, 140, 190, 210, 230]) == (2, 4)
    assert read_memray.find_window(span, [90, 190, 210]) is None
    assert read_memray.find_window(span, [120, 190, 260]) is None
    assert [read_memray.find_run(sign, [(2, 4)]) for sign in (2, 3, 4, 5)] == [None, 0, 0, None]


def test_the_page_fits_80_columns_and_tells_what_tracing_cost() -> None:
    lines = page(LEAK).splitlines()
    assert max(map(len, lines)) <= 80
    told = " ".join(page(LEAK).split())
    assert "2 s each, untraced 0.8 s, 2.5 times as long" in told
    assert "4.77 MiB 1.5 5/5" in told
    assert "/app/tasks.py:31 scrape" in told


def test_where_nothing_grew_the_page_says_where_else_to_look() -> None:
    assert "pip install memray" in " ".join(page().split())
    assert "not in this process's own memory" in " ".join(page(tool="memray").split())


def test_a_line_is_named_by_the_innermost_function_around_it(tmp_path: Path) -> None:
    source = tmp_path / "code.py"
    source.write_text("x = 1\ndef outer():\n    def inner():\n        return x\n    return inner\n")
    assert [function_at(str(source), line) for line in (1, 2, 4, 5)] == ["", "outer", "inner", "outer"]
    assert function_at("<string>", 1) == ""


def test_a_child_whose_tracing_is_over_is_let_go_once() -> None:
    for tracing, leaving, past, dismissed in (
        ("over", (), {}, 1),
        ("over", (CHILD.pid,), {}, 0),
        ("over", (), {CHILD: AT - 1}, 0),
        ("on", (), {}, 0),
        ("", (), {}, 0),
    ):
        look = snapshot(child(tracing=tracing), pools=(slow_view(leaving=frozenset(leaving)),))
        assert len(list(dismiss_traced(look, policy_state(dismissed=past)))) == dismissed


def test_nothing_is_learned_from_runs_of_a_child_that_traces() -> None:
    for tracing, learned in (("", 1), ("on", 0), ("over", 0)):
        tracks, _ = update_trackers({}, snapshot(child(tasks_done=3)))
        busy, _ = update_trackers(tracks, snapshot(child(tasks_done=3, task_id="t", task_name="n")))
        assert len(update_trackers(busy, snapshot(child(tasks_done=4, tracing=tracing)))[1]) == learned


@pytest.mark.parametrize(
    "arguments", [("--runs", "3"), ("--pool", "slow"), ("--trace", "t", "--since", "2h")], ids=" ".join
)
def test_options_that_do_not_go_together_are_refused(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["leaks", *arguments]) == 2
    assert "--trace TASK" in capsys.readouterr().err


def test_no_number_of_runs_is_below_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["leaks", "--trace", "t", "--runs", "0"])
    assert "'0' must be a whole number, 1 or more" in capsys.readouterr().err
