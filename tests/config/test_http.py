"""Where HTTP is served: how that is said, and what is refused."""

import socket
from pathlib import Path
from typing import Any

import pytest

from recyclery.config.fields import BadConfiguration
from recyclery.config.sources import CommandLine, load_settings
from recyclery.pid1.run import check_listening


def address(line: str | None = None, **environment: str) -> str:
    """Return the address that these give, as text."""
    return str(load_settings(CommandLine(options={"--http": line}), {"CELERY_APP": "app", **environment}).http)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", ":8080"),
        (":8080", ":8080"),
        ("0.0.0.0:80", "0.0.0.0:80"),
        ("localhost:65535", "localhost:65535"),
        ("[::1]:8080", "[::1]:8080"),
        ("off", "None"),
    ],
)
def test_an_address_is_a_port_or_a_host_and_a_port(text: str, expected: str) -> None:
    assert address(RECYCLERY_HTTP=text) == expected


@pytest.mark.parametrize(
    "text", ["0", "65536", "http", "::1:80", "[127.0.0.1]:80", "[]:80", "example.org:80", "1.2.3:80", "-1", "²"]
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(BadConfiguration) as refused:
        address(PORT=text)
    assert f"PORT is {text!r} (in the environment): it must be a port from 1 to 65535" in str(refused.value)


def test_http_is_off_unless_it_is_asked_for() -> None:
    assert address() == "None"
    assert address(PORT="", RECYCLERY_HTTP=" ") == "None"


def test_the_command_line_stands_above_the_environment_and_our_variable_above_the_platforms() -> None:
    assert address("1", RECYCLERY_HTTP="2", PORT="3") == ":1"
    assert address(RECYCLERY_HTTP="off", PORT="3") == "None"


@pytest.mark.parametrize(("value", "expected"), [('"127.0.0.1:8080"', "127.0.0.1:8080"), ("8080", ":8080")])
def test_the_file_names_it_where_nothing_above_does(value: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(f"http = {value}\n")
    path: dict[str, Any] = {"RECYCLERY_CONFIG": str(tmp_path / "r.toml")}
    assert (address(**path), address(**path, PORT="9")) == (expected, ":9")


def test_a_port_that_is_taken_is_told_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = load_settings(CommandLine(), {"CELERY_APP": "app", "RECYCLERY_HTTP": text})
        with pytest.raises(BadConfiguration) as refused:
            check_listening(settings.http)
    assert f"RECYCLERY_HTTP is '{text}' (in the environment): nothing can listen there" in str(refused.value)
    assert "Address already in use" in str(refused.value)
