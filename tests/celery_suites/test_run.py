"""What is said of Celery's own tests: by what pytest has written down of both sides."""

from pathlib import Path

from celery_suites.run import find_differences, read_report, reason

REPORT = """<testsuites><testsuite>
<testcase classname="t.integration.test_worker" name="test_run" file="t/integration/test_worker.py"/>
<testcase classname="t.smoke.test_a.test_Outer.test_Inner" name="test_x[1.5]" file="t/smoke/test_a.py">
<failure message="no">text</failure></testcase>
<testcase classname="t.smoke.test_a.test_Outer" name="test_y" file="t/smoke/test_a.py"/>
<testcase classname="t.smoke.test_a.test_Outer" name="test_y" file="t/smoke/test_a.py">
<error>end</error></testcase>
</testsuite></testsuites>"""


def test_a_report_has_each_test_by_the_name_that_runs_it_and_its_worst_outcome(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    assert read_report(report) == {
        "t/integration/test_worker.py::test_run": "passed",
        "t/smoke/test_a.py::test_Outer::test_Inner::test_x[1.5]": "failure",
        "t/smoke/test_a.py::test_Outer::test_y": "error",
    }


def test_a_difference_is_what_passes_with_stock_workers_and_fails_or_does_not_run_with_ours() -> None:
    stock = {"a": "passed", "b": "passed", "c": "passed", "d": "failure", "e": "skipped"}
    ours = {"a": "passed", "b": "failure", "d": "failure", "e": "failure"}
    assert find_differences(stock, ours) == ["b", "c"]


def test_a_difference_that_is_promised_has_a_reason() -> None:
    assert "acknowledged" in reason("t/integration/test_inspect.py::test_Inspect::test_active")
    assert reason("t/integration/test_inspect.py::test_Inspect::test_ping") == ""
