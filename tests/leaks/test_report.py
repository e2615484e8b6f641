"""`recyclery leaks` over a history of known leaks: table, JSON, page, comparison."""

import json
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from benchmarks.leak_worlds import MIB, Planted, live
from recyclery.cli.parser import main
from recyclery.history.reader import open_history
from recyclery.history.records import ActionRecord, ContainerSample, PoolSample, Record, RunRecord
from recyclery.history.store import Store
from recyclery.leaks.page import build_leaks_page
from recyclery.leaks.report import build_leak_report
from recyclery.observe.snapshot import Owner
from recyclery_worker.browser import browser
from support.layout import FAINT_TEXTS, OVERLAPS, SIDEWAYS, complaints, dress, watched_options

NOW = int(time.time())
HOUR = 3600
TASKS = (Planted("shop.tasks.leak", "leak", mib=4), Planted("shop.tasks.mail", "none"))


def record(path: Path, tasks: Sequence[Planted] = TASKS, *, begun: int = NOW - HOUR, runs: int = 100) -> Path:
    """Write a history of one pool whose children are recycled every 100 tasks."""
    found, _ = live(tasks, runs, 100, "a test")
    records: list[Record] = [ContainerSample(begun, 1 << 30, 1, 500 * MIB, 0, 0)]
    for number, run in enumerate(found):
        owner = Owner("slow", 1000 + run.child, begun)
        at = begun + number * 10
        records.append(
            RunRecord(owner, run.tasks, run.place, at, 1.0, run.before, run.peak, run.after, True, "done")
        )
        if run.place == 99:
            why = "its next task would pass its budget"
            records.append(ActionRecord(at, "retire", "slow", owner, None, why, why, True, 0, 0))
    records.append(PoolSample(begun, "slow", 100 * MIB, 50 * MIB, 1, 250 * MIB, 100))
    store = Store(path)
    store.write(records)
    store.close()
    return path


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("state") / "history.db")


def leaks(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run `recyclery leaks`, and return what it printed."""
    assert main(["leaks", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_the_table_names_the_leak_its_place_and_a_number_that_fits(
    history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = leaks(capsys, "--history", history).splitlines()
    (row,) = [line for line in lines if line.startswith("shop.tasks.leak ")]
    name, runs, mean, _, away, share, where, shape, number, lost = row.split()
    assert (name, runs, where, shape, lost) == ("shop.tasks.leak", "100", "Python", "leak", "2+0")
    assert float(mean) == pytest.approx(4, abs=0.4)
    assert 0 < float(away) < 1
    assert share in {"99%", "100%"}
    # A fresh child of 50 MiB, a peak of 10, a budget of 250: less than 190 / 4.
    assert 30 <= int(number) <= 47


def test_the_table_fits_80_columns(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, *lines = leaks(capsys, "--history", history).splitlines()
    assert path == str(history)
    assert max(map(len, lines)) <= 80


def test_json_has_every_figure_of_every_place(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(leaks(capsys, "--json", "--history", history))
    (pool,) = document["pools"]
    leak = pool["tasks"][0]
    assert (leak["task"], leak["place"], leak["recycles"]) == ("shop.tasks.leak", "python", 2)
    assert leak["places"].keys() == {"python", "browser", "shared", "other"}
    assert leak["low_bytes"] < leak["bytes_per_run"] < leak["high_bytes"]


def test_of_tasks_only_those_with_the_name_are_shown(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = leaks(capsys, "--task", "mail", "--history", history)
    assert "shop.tasks.mail" in shown
    assert "shop.tasks.leak" not in shown


def test_only_runs_since_a_time_count(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Each run ended ten seconds after the one before it.
    since = datetime.fromtimestamp(NOW - HOUR + 1800).astimezone().isoformat()
    document = json.loads(leaks(capsys, "--json", "--since", since, "--history", history))
    assert sum(task["runs"] for task in document["pools"][0]["tasks"]) == 20


def test_few_runs_are_called_too_few(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    since = datetime.fromtimestamp(NOW - HOUR + 1800).astimezone().isoformat()
    shown = leaks(capsys, "--since", since, "--task", "leak", "--history", history)
    assert "too few to tell" in " ".join(shown.split())


def test_a_deploy_that_mended_a_leak_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record(tmp_path / "history.db", begun=NOW - 4 * HOUR)
    mended = (Planted("shop.tasks.leak", "none"), TASKS[1])
    record(path, mended, begun=NOW - HOUR)
    (row,) = [
        line
        for line in leaks(capsys, "--compare", "5h..2h", "--history", path).splitlines()
        if "shop.tasks.leak" in line
    ]
    assert float(row.split()[-1]) == pytest.approx(-4, abs=0.5)


def test_a_leak_that_stayed_is_not_said_to_have_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record(tmp_path / "history.db", begun=NOW - 4 * HOUR)
    record(path, begun=NOW - HOUR)
    shown = leaks(capsys, "--compare", "5h..2h", "--task", "leak", "--history", path)
    assert "not sure" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--since", "yesterday"), ["'yesterday' is no time", "90m, 2h or 3d"]),
        (("--compare", "2h"), ["'2h'", "A..B"]),
        (("--compare", "1h..2h"), ["A must be before B"]),
        (("--compare", "2h..1h", "--since", "3h"), ["--since does not go"]),
    ],
)
def test_a_time_that_cannot_be_read_is_refused_with_what_can(
    history: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: list[str]
) -> None:
    assert main(["leaks", *arguments, "--history", str(history)]) == 2
    said = capsys.readouterr().err
    assert [word for word in words if word not in said] == []


def test_a_task_that_never_ran_is_said_to_be_none(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaks", "--task", "nobody", "--history", str(history)]) == 1
    assert "no task that ran has 'nobody' in its name" in capsys.readouterr().err


def test_a_file_that_is_no_history_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "history.db"
    broken.write_bytes(b"no database at all" * 1000)
    assert main(["leaks", "--history", str(broken)]) == 1
    assert f"{broken}: file is not a database" in capsys.readouterr().err


def test_the_page_has_each_task_and_no_name_becomes_markup(tmp_path: Path) -> None:
    odd = (Planted("</script><b>{{scripts}}", "leak", mib=4), TASKS[1])
    path = record(tmp_path / "history.db", odd)
    with open_history(path) as history:
        page = build_leaks_page(history, build_leak_report(history, path, 0, NOW + 1))
    assert "&lt;/script&gt;&lt;b&gt;{{scripts}}" in page
    assert "</script><b>" not in page
    assert page.count("class Chart") == 1


@pytest.mark.browser
def test_the_page_draws_all_its_plots_and_loads_nothing(history: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["leaks", "--html", str(page), "--history", str(history)]) == 0
    with browser() as driver:
        driver.get(page.as_uri())
        drawn, loaded = driver.execute_script(
            "const count = (parts) => document.querySelectorAll(parts).length;"
            "return [['#time path.course', '#time .mark', '#lives path.course', '#spread .box'].map(count),"
            "performance.getEntriesByType('resource').map((entry) => entry.name)]"
        )
        chart = driver.find_element(By.CSS_SELECTOR, "#lives svg")
        driver.execute_script("arguments[0].focus()", chart)
        chart.send_keys(Keys.END)
        told = chart.get_attribute("aria-valuetext") or ""
    # Floor, usage and pool; two retirements; two children; two tasks.
    assert (drawn, loaded) == ([3, 2, 2, 2], [])
    assert told.startswith("after task 100; pool slow: ")
    assert told.count("MiB, shop.tasks.") == 2


@pytest.mark.browser
def test_the_page_can_be_read_on_any_screen_by_day_and_night(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    odd = (Planted("shop.tasks.</script><b>.a_name_as_long_as_they_come", "leak", mib=4), TASKS[1])
    path = record(tmp_path / "history.db", odd)
    assert main(["leaks", "--html", str(page), "--history", str(path)]) == 0
    with browser(options=watched_options()) as driver:
        for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")):
            dress(driver, width, scheme)
            driver.get(page.as_uri())
            assert driver.execute_script(SIDEWAYS) == []
            assert driver.execute_script(OVERLAPS) == []
            assert driver.execute_script(FAINT_TEXTS) == []
            assert complaints(driver) == []
            texts = driver.execute_script(
                "return [...document.querySelectorAll('.chart text')].map((each) => each.textContent)"
            )
            names = {"above the child's beginning", "left by one run", "tasks that the child has run"}
            assert names <= set(texts)
            assert sum(text.endswith("MiB") for text in texts) >= 6
            tasks = driver.execute_script("return document.querySelector('#spread').textContent")
            assert "as_they_come (slow)" in tasks
            assert "lt;" not in tasks
