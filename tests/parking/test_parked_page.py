"""What `recyclery parked list` and `show` print."""

import base64
import json

import msgspec
import pytest

from recyclery.cli.parked import format_list, format_parked_task, parked_document
from recyclery_worker.parking.records import Death, ParkedTask, as_stored

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


def test_a_message_that_cannot_be_handled_is_listed_with_the_reason_and_shown_without_what_is_unknown() -> None:
    task = msgspec.structs.replace(TASK, arguments="? ?", queues=[], reason="TypeError: " + "no " * 50)
    _, row, reason = format_list([(task, [])])
    assert row.split()[4] == "-"
    assert reason.startswith("  TypeError: no no")
    assert len(reason) <= 80
    page = format_parked_task(task, [])
    names = [line.split()[0] for line in page if not line.startswith(" ")]
    assert names == ["task", "name", "parked", "reason"]


def test_the_document_has_the_message_as_the_broker_had_it() -> None:
    assert parked_document(TASK, DEATHS)["message"] == {"body": "W10="}


def test_an_empty_parked_list_is_stated() -> None:
    assert format_list([]) == ["nothing is parked"]


def test_control_characters_of_any_text_are_shown_as_escapes() -> None:
    bad = "\x1b[2J\n\ud800"
    texts = dict.fromkeys(("task_id", "name", "arguments", "reason", "node"), bad)
    task = msgspec.structs.replace(TASK, **texts, queues=[bad])
    lines = format_list([(task, DEATHS)]) + format_parked_task(task, DEATHS)
    assert "".join(lines).isprintable()
    assert "\\x1b[2J\\n\\ud800" in lines[1]


def test_a_text_of_megabytes_is_cut_on_the_page() -> None:
    task = msgspec.structs.replace(TASK, arguments="x" * 5_000_000)
    assert sum(map(len, format_parked_task(task, DEATHS))) < 10_000


ODD_MESSAGES = (
    *(b"\xff\x00", b"", b"[NaN]", b"[1e999]", b"[" * 400 + b"]" * 400, b"[" * 5000 + b"]" * 5000),
    *(b"[" + b"9" * 5000 + b"]", b'"\\ud800"', b"\x80\x05]q\x00.", b'{"a": 1, "a": 2}', b" [1]\n"),
)


@pytest.mark.parametrize("item", ODD_MESSAGES, ids=lambda item: repr(item[:12]))
def test_a_message_of_any_bytes_is_in_the_document_and_kept_as_it_is(item: bytes) -> None:
    message, raw = as_stored(item)
    entry = msgspec.json.encode(msgspec.structs.replace(TASK, message=message, raw=raw))
    task = msgspec.json.decode(entry, type=ParkedTask)
    document = json.loads(json.dumps(parked_document(task, DEATHS), indent=2, allow_nan=False))
    kept = bytes(task.message) if document["raw"] is None else base64.b64decode(document["raw"])
    assert kept.strip() == item.strip()
