"""Log lines as text and as JSON."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recyclery.pid1.output import JsonFormat, TextFormat


def parsed(line: bytes) -> dict[str, Any]:
    """Return the one object on the one line, without its time."""
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    entry: dict[str, Any] = json.loads(line)
    del entry["time"]
    return entry


def test_text_passes_every_byte_on() -> None:
    assert TextFormat().output("slow", b"a\xff\tb", cut=False) == b"slow | a\xff\tb\n"


def test_text_has_the_banner_alone_on_its_line() -> None:
    assert TextFormat().banner("slow", "🔨 Starting Celery Worker") == "🔨 Starting Celery Worker\n".encode()


def test_each_line_of_an_own_message_begins_with_our_name() -> None:
    lines = TextFormat().own("info", "one\ntwo").decode().splitlines()
    assert [(line.split(" | ")[0], line.rpartition(" ")[2]) for line in lines] == [
        ("recyclery", "one"),
        ("recyclery", "two"),
    ]


def test_json_takes_a_celery_line_apart() -> None:
    line = b"[2026-11-22 10:00:00,123: WARNING/ForkPoolWorker-1] sample.add[1]: text"
    assert parsed(JsonFormat().output("slow", line, cut=False)) == {
        "pool": "slow",
        "level": "warning",
        "process": "ForkPoolWorker-1",
        "message": "sample.add[1]: text",
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"plain", "plain"),
        (b"", ""),
        (b'{"a": "\\"}', '{"a": "\\"}'),
        (b"a\x1b[0m\tb", "a\x1b[0m\tb"),
        (b"windows\r", "windows"),
        (b"caf\xe9 \xff", "caf\\xe9 \\xff"),
        ("ñ 🔨".encode(), "ñ 🔨"),
    ],
)
def test_any_other_line_becomes_the_message_of_one_object(line: bytes, message: str) -> None:
    assert parsed(JsonFormat().output("slow", line, cut=False)) == {"pool": "slow", "message": message}


def test_json_says_that_a_line_goes_on() -> None:
    assert parsed(JsonFormat().output("slow", b"begin", cut=True))["partial"] is True


def test_json_has_an_own_message_of_several_lines_on_one() -> None:
    assert parsed(JsonFormat().own("error", "one\ntwo")) == {
        "pool": "recyclery",
        "level": "error",
        "message": "one\ntwo",
    }


def test_the_time_is_now_with_its_offset() -> None:
    at = datetime.fromisoformat(json.loads(JsonFormat().banner("slow", "x"))["time"])
    assert abs(datetime.now(UTC) - at) < timedelta(seconds=5)
