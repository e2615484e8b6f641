"""What `recyclery parked list` and `show` print."""

import msgspec

from recyclery.cli.parked import format_list, format_parked_task, parked_document
from recyclery_worker.parking.records import Death, ParkedTask

TASK = ParkedTask(
    tag="tag",
    task_id="c1514b00-f968-4bc5-8309-0187b92e8dd2",
    name="app.infrastructure.celery.tasks.scrape_the_tax_office",
    type="scrape",
    arguments=f"({'x' * 200!r},) {{}}",
    at=1_795_397_388.0,
    node="slow@7f3a",
    queues=["low-priority-queue"],
    keys=["low-priority-queue\x06\x163"],
    message=msgspec.Raw(b'{"body": "W10="}'),
)
DEATHS = [
    Death(at=1_795_397_300.0, how="preempted by the supervisor, before memory ran out", node="slow@7f3a",
          pid=4711, tree_bytes=812 << 20),
    Death(at=1_795_397_350.0, how="its worker died", node="slow@7f3a"),
]  # fmt: skip


def test_the_parked_table_and_page_fit_into_80_columns() -> None:
    lines = format_list([(TASK, DEATHS)]) + format_parked_task(TASK, DEATHS)
    assert max(map(len, lines)) <= 80


def test_the_table_has_the_whole_id_and_the_end_of_the_name() -> None:
    row = format_list([(TASK, DEATHS)])[1].split()
    assert row[0] == TASK.task_id
    assert row[-1].startswith("…")
    assert TASK.name.endswith(row[-1].removeprefix("…"))


def test_the_page_tells_of_each_death_with_its_memory_where_known() -> None:
    page = " ".join(" ".join(format_parked_task(TASK, DEATHS)).split())
    assert "died 2 times" in page
    assert "pid 4711, 812 MiB: preempted" in page
    assert "on slow@7f3a: its worker died" in page


def test_the_document_has_the_message_as_the_broker_had_it() -> None:
    assert parked_document(TASK, DEATHS)["message"] == {"body": "W10="}


def test_an_empty_parked_list_is_stated() -> None:
    assert format_list([]) == ["nothing is parked"]
