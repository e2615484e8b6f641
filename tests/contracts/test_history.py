"""`history.db`: reports, the web page and users' own queries select tables and action kinds by name."""

import re
import sqlite3
from pathlib import Path

from contracts import product
from contracts.frozen import assert_frozen, frozen
from support.waiting import wait_for


def kinds_in(history: Path) -> set[str]:
    """Return the action kinds in a history."""
    with sqlite3.connect(history) as connection:
        return {kind for (kind,) in connection.execute("SELECT kind FROM actions")}


def test_the_history_stores_each_action_under_its_frozen_kind(tmp_path: Path) -> None:
    history = product.record_everything(tmp_path)
    wait_for(lambda: "notice" in kinds_in(history), "everything is written")
    assert_frozen("history_kinds", kinds_in(history))


def test_every_action_class_states_its_kind_itself() -> None:
    assert [action for action in product.ACTIONS if "kind" not in vars(action)] == []


def test_the_leak_report_and_its_page_look_for_frozen_kinds() -> None:
    assert product.kinds_in_reports() <= {*frozen("history_kinds")}


def test_the_web_page_names_and_colours_frozen_kinds() -> None:
    tables = re.findall(r"const (?:TONES|NAMES) = {(.*?)};", product.page_script(), re.S)
    asked = {kind for table in tables for kind in re.findall(r"(\w+): \"", table)}
    assert len(asked) >= 10
    assert asked <= {*frozen("history_kinds")}


def test_the_leak_report_counts_recycles_oom_kills_and_left_browsers_by_kind(tmp_path: Path) -> None:
    history = tmp_path / "history.db"
    product.record_runs(history, 30, kinds=("retire", "preempt", "preempt", "oom", "reap leftovers"))
    (task,) = product.report_on(history).tasks
    assert (task.recycles, task.oom_kills, task.browsers_left) == (3, 1, 1)


def test_the_history_has_the_frozen_tables_columns_rollups_and_outcomes(tmp_path: Path) -> None:
    history = product.record_everything(tmp_path)
    wait_for(lambda: "notice" in kinds_in(history), "everything is written")
    product.sum_up(history)
    with sqlite3.connect(history) as connection:
        ask = connection.execute
        tables = [
            name
            for (name,) in ask(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'"
            )
        ]
        columns = [
            f"{table}.{name} {kind}{' key' if key else ''}"
            for table in tables
            for _, name, kind, _, _, key in ask(f"PRAGMA table_info({table})")
        ]
        sums = [f"progress of {what}" for (what,) in ask("SELECT what FROM progress ORDER BY what")]
        outcomes = [f"outcome {what}" for (what,) in ask("SELECT DISTINCT outcome FROM runs ORDER BY outcome")]
    assert_frozen("history_schema", [*columns, *sums, *outcomes])
