"""The kinds of action in the history: reports, the page and people's own queries ask for them by name."""

import re
import sqlite3
from pathlib import Path

from contracts import product
from contracts.frozen import assert_frozen, frozen
from support.waiting import wait_for


def kinds_in(history: Path) -> set[str]:
    """Return the kinds of action that are written down."""
    with sqlite3.connect(history) as connection:
        return {kind for (kind,) in connection.execute("SELECT kind FROM actions")}


def test_the_history_has_each_action_under_its_frozen_kind(tmp_path: Path) -> None:
    history = product.record_actions(tmp_path)
    wait_for(lambda: "oom" in kinds_in(history), "the last action is written")
    assert_frozen("history_kinds", kinds_in(history))


def test_every_action_class_states_its_kind_itself() -> None:
    assert [action for action in product.ACTIONS if "kind" not in vars(action)] == []


def test_the_leak_report_and_its_page_ask_for_frozen_kinds() -> None:
    assert product.kinds_in_reports() <= {*frozen("history_kinds")}


def test_the_web_page_names_and_colours_frozen_kinds() -> None:
    tables = re.findall(r"const (?:TONES|NAMES) = {(.*?)};", product.page_script(), re.S)
    asked = {kind for table in tables for kind in re.findall(r"(\w+): \"", table)}
    assert len(asked) >= 10
    assert asked <= {*frozen("history_kinds")}


def test_the_leak_report_counts_recycles_oom_kills_and_left_browsers_by_kind(tmp_path: Path) -> None:
    report = product.report_on(tmp_path, kinds=("retire", "preempt", "preempt", "oom", "reap leftovers"))
    (task,) = report.tasks
    assert (task.recycles, task.oom_kills, task.browsers_left) == (3, 1, 1)
