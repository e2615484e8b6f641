"""`scripts/bench all` and `compare`, for real, on a small repository with benchmarks that take no time."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import all as every
from benchmarks import compare
from benchmarks.report import read_report
from benchmarks.running import ROOT, find_benchmarks, run_benchmark
from support.waiting import is_alive, wait_for

RUN = f'#!/bin/sh\nname=$1\nshift\nexec {sys.executable} -m "benchmarks.$name" "$@"\n'
FAKE = '''"""fake: how long a file says that work takes."""
import sys
from pathlib import Path
from benchmarks.contract import Bound, close
seconds = float(Path("work").read_text())
print("working hard", flush=True)
sys.exit(close("fake", {"work seconds": seconds}, {"work": Bound(seconds, "<=", 9)}, {}, {"ratio": [1.0] * 5}))
'''
# The first five of its runs are slow, as by chance.
SLOW_AT_FIRST = """import os
with open(os.environ["RUNS"], "a+") as file:
    file.write(".")
    open("work", "w").write("2" if file.tell() <= 5 else "1")
"""
BROKEN = '"""broken: never ends well."""\nraise ValueError("out of luck")\n'
MISSING = '"""missing: wants the moon."""\nfrom benchmarks.contract import cannot_run\ncannot_run("no moon")\n'
ENDLESS = '''"""endless: goes on, with a process that does too."""
import os, subprocess, time
from pathlib import Path
sleeper = subprocess.Popen(["sleep", "600"], start_new_session=True)
Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {sleeper.pid}")
time.sleep(600)
'''


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def commit(root: Path, work: float) -> None:
    """Commit what is there, with work that takes so many seconds."""
    (root / "work").write_text(str(work))
    git(root, "add", ".")
    git(root, "commit", "-q", "--allow-empty", "-m", f"work takes {work:g} s")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository whose benchmark takes one second by its first commit and two by its second."""
    root = tmp_path / "repository"
    (root / "scripts").mkdir(parents=True)
    (root / "benchmarks").mkdir()
    (root / "scripts/bench").write_text(RUN)
    (root / "scripts/bench").chmod(0o755)
    shutil.copy(ROOT / "benchmarks/contract.py", root / "benchmarks")
    for name, text in (("fake", FAKE), ("broken", BROKEN), ("missing", MISSING), ("endless", ENDLESS)):
        (root / f"benchmarks/{name}.py").write_text(text)
    (root / ".gitignore").write_text("__pycache__\n")
    git(root, "init", "-q")
    commit(root, 1)
    commit(root, 2)
    return root


def worktrees(root: Path) -> list[str]:
    return git(root, "worktree", "list").splitlines()


# All of them.


def test_every_benchmark_of_the_checkout_is_found_and_what_helps_them_is_not() -> None:
    found = find_benchmarks(ROOT)
    assert {"throughput", "recycle_gap", "overhead", "policy_sim", "images"} <= set(found)
    assert not {"all", "compare", "contract", "workers", "throughput_app"} & set(found)


def test_one_file_has_what_passed_what_failed_and_what_cannot_run_here(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "all.json"
    assert every.main(["--only", "broken,missing,fake", "--json", str(path)], root) == 1
    report = read_report(path)
    assert {name: each.result for name, each in report.benchmarks.items()} == {
        "broken": "failed", "missing": "cannot run", "fake": "passed",
    }  # fmt: skip
    assert "ValueError: out of luck" in report.benchmarks["broken"].reason
    assert "no moon" in report.benchmarks["missing"].reason
    fake = report.benchmarks["fake"]
    assert (fake.figures, fake.exit_code, fake.required["work"].holds) == ({"work seconds": 2.0}, 0, True)
    assert (fake.samples["ratio"].values, fake.samples["ratio"].coverage) == ([1.0] * 5, 0.9375)
    assert (report.commit, report.dirty) == (git(root, "rev-parse", "HEAD").strip(), False)
    assert report.machine.cores == os.cpu_count()
    shown = capsys.readouterr()
    assert "fake: passed" in shown.out
    assert "working hard" in shown.err


def test_a_broken_bound_ends_with_1_and_without_a_file_name_stdout_is_the_file_alone(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "work").write_text("10")
    assert every.main(["--only", "fake", "--json"], root) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["benchmarks"]["fake"]["result"], document["dirty"]) == ("bound", True)


def test_what_is_missing_on_this_machine_breaks_nothing(root: Path) -> None:
    assert every.main(["--only", "missing"], root) == 0


def test_a_name_that_is_no_benchmark_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        every.main(["--only", "fakes"], root)
    assert "no benchmark: fakes" in capsys.readouterr().err


def test_a_benchmark_that_does_not_end_is_given_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.running.QUICK_SECONDS", 1.0)
    monkeypatch.setenv("PIDS", str(root / "pids"))
    assert run_benchmark(root, "endless", ["--quick"]).result == "timeout"
    assert not any(is_alive(int(pid)) for pid in (root / "pids").read_text().split())


# Two revisions.


def test_what_got_slower_is_named_once_a_second_series_says_so_too(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main(["HEAD~1", "HEAD", "fake"], root) == 1
    shown = capsys.readouterr()
    assert "slower: fake, work seconds" in shown.out
    assert "2.000 (2.000 to 2.000)" in shown.out
    assert shown.err.count("fake, pair 5 of 5: ") == 4
    assert len(worktrees(root)) == 1


def test_what_only_the_first_series_calls_slower_is_not_called_so(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "work").write_text("1")
    (root / "benchmarks/fake.py").write_text(FAKE.replace("import sys", SLOW_AT_FIRST + "import sys"))
    commit(root, 1)
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    assert compare.main(["HEAD~2", "HEAD", "fake"], root) == 0
    shown = capsys.readouterr()
    assert "something looks worse" in shown.err
    assert "0 worse for certain" in shown.out


def test_what_got_faster_or_stayed_breaks_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["HEAD", "HEAD~1", "fake"], root) == 0
    assert "faster" in capsys.readouterr().out
    assert compare.main(["HEAD", "HEAD", "fake", "--pairs", "1"], root) == 0
    assert "0 worse for certain" in capsys.readouterr().out


def test_the_sides_take_turns_to_go_first(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare.main(["HEAD", "HEAD~1", "fake", "--pairs", "3"], root)
    lines = [line for line in capsys.readouterr().err.splitlines() if "pair" in line]
    assert [line.split(": ")[1][0] for line in lines] == ["A", "B", "B", "A", "A", "B"]


def test_a_side_whose_runs_fail_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "benchmarks/fake.py").write_text(BROKEN)
    commit(root, 2)
    assert compare.main(["HEAD~1", "HEAD", "fake", "--pairs", "1"], root) == 1
    shown = capsys.readouterr().out
    assert "fake, pair 1 of 1: B: it ended with an error (exit status 1)" in shown
    assert "fake: B gives no figures, and A does" in shown


def test_a_figure_that_one_side_lacks_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "benchmarks/fake.py").write_text(FAKE.replace('"work seconds": seconds', '"rest seconds": seconds'))
    commit(root, 2)
    assert compare.main(["HEAD~1", "HEAD", "fake", "--pairs", "1"], root) == 0
    shown = capsys.readouterr().out
    assert "fake: only A gives work seconds" in shown
    assert "fake: only B gives rest seconds" in shown


@pytest.mark.parametrize(
    ("sides", "complaint"),
    [
        (["HEAD", "nowhere"], "nowhere is neither a file nor a git revision"),
        (["HEAD", __file__], "not measured side by side"),
        ([__file__, __file__], "no file of `scripts/bench all --json`"),
        (["HEAD", "HEAD", "broken", "--pairs", "1"], "out of luck"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(
    root: Path, sides: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main(sides, root) == 2
    assert complaint in capsys.readouterr().err


def test_ctrl_c_ends_the_benchmark_and_removes_the_worktrees(root: Path, tmp_path: Path) -> None:
    pids, temporary = tmp_path / "pids", tmp_path / "temporary"
    temporary.mkdir()
    code = "import sys, pathlib; from benchmarks.compare import main; "
    code += f"sys.exit(main(['HEAD', 'HEAD~1', 'endless'], pathlib.Path({str(root)!r})))"
    environment = {**os.environ, "PIDS": str(pids), "TMPDIR": str(temporary)}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment) as run:
        wait_for(lambda: pids.exists() and pids.read_text(), "the benchmark began")
        assert len(worktrees(root)) == 3
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 130
    assert not any(is_alive(int(pid)) for pid in pids.read_text().split())
    assert len(worktrees(root)) == 1
    assert list(temporary.iterdir()) == []


# Two files.


def test_two_files_are_compared_by_the_intervals_they_hold(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    every.main(["--only", "fake,missing", "--json", str(before)], root)
    # Of another length: Python takes a file of the same size and second for the one it has compiled.
    (root / "benchmarks/fake.py").write_text(FAKE.replace("[1.0] * 5", "[0.50] * 5"))
    every.main(["--only", "fake,missing", "--json", str(after)], root)
    capsys.readouterr()
    assert compare.main([str(before), str(after)], root) == 1
    shown = capsys.readouterr().out
    assert "worse: fake, ratio" in shown
    assert "missing: A: something is missing here (exit status 77)" in shown
    assert compare.main([str(after), str(before)], root) == 0


def test_a_quick_file_is_not_held_against_a_thorough_one(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick, thorough = tmp_path / "quick.json", tmp_path / "thorough.json"
    for path, options in ((quick, ["--quick"]), (thorough, [])):
        every.main(["--only", "missing", "--json", str(path), *options], root)
    assert compare.main([str(quick), str(thorough)], root) == 2
    assert "--quick" in capsys.readouterr().err
