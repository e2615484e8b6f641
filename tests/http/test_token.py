"""Who may read what is not open."""

import asyncio
from http import HTTPStatus

import h11
import pytest

from recyclery.config.settings import Address, parse_address
from recyclery.http.auth import guard
from recyclery.http.server import GetHandler, Response

SECRET = "correct horse"


async def page(_: h11.Request) -> Response:
    return Response(HTTPStatus.OK, "figures\n")


def parsed(text: str) -> Address:
    return parse_address(text)


def ask(
    address: str, token: str, *headers: tuple[str, str], target: str = "/metrics", host: str = "localhost:80"
) -> Response:
    request = h11.Request(method="GET", target=target, headers=[("Host", host), *headers])
    handler = guard({"/metrics": page}, parsed(address), token)["/metrics"]
    return answered(handler, request)


def answered(handler: GetHandler, request: h11.Request) -> Response:
    async def wait() -> Response:
        return await handler(request)

    return asyncio.run(wait())


@pytest.mark.parametrize("address", ["127.0.0.1:80", "127.8.8.8:80", "localhost:80", "[::1]:80"])
def test_on_loopback_it_is_open(address: str) -> None:
    assert ask(address, "").status == ask(address, SECRET).status == 200


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1:80", "127.8.8.8", "[::1]:80", "[::1]"]
)
def test_on_loopback_this_machines_own_names_are_answered(host: str) -> None:
    assert ask("127.0.0.1:80", "", host=host).status == 200


@pytest.mark.parametrize(
    "host", ["rebound.example", "localhost.rebound.example:80", "10.0.0.1:80", "80", "[::2]:80"]
)
def test_a_name_that_points_to_loopback_is_not_enough_without_the_token(host: str) -> None:
    answer = ask("127.0.0.1:80", "", host=host)
    assert answer.status == 403
    assert "localhost, 127.0.0.1 and [::1]" in answer.text
    assert ask("127.0.0.1:80", SECRET, host=host).status == 401
    assert ask("127.0.0.1:80", SECRET, ("Authorization", f"Bearer {SECRET}"), host=host).status == 200


@pytest.mark.parametrize("address", ["80", ":80", "0.0.0.0:80", "[::]:80", "10.0.0.1:80"])
def test_elsewhere_nobody_reads_it_where_no_token_is_set_and_the_answer_says_what_to_set(address: str) -> None:
    answer = ask(address, "", ("Authorization", "Bearer"))
    assert answer.status == 403
    assert "set RECYCLERY_HTTP_TOKEN" in answer.text
    assert "127.0.0.1" in answer.text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_elsewhere_the_token_opens_it(scheme: str) -> None:
    assert ask("80", SECRET, ("Authorization", f"{scheme} {SECRET}")).text == "figures\n"


@pytest.mark.parametrize(
    "sent", [None, "", "Bearer", "Bearer correct", f"Basic {SECRET}", SECRET, f"Bearer {SECRET}x"]
)
def test_anything_else_is_refused_without_telling_the_token(sent: str | None) -> None:
    answer = ask("80", SECRET, *([("Authorization", sent)] if sent is not None else []))
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert SECRET not in answer.text


def test_a_token_in_the_url_opens_nothing() -> None:
    assert ask("80", "abc", target="/metrics?token=abc&access_token=abc").status == 401


def test_a_token_beyond_ascii_is_compared_by_its_bytes() -> None:
    handler = guard({"/metrics": page}, parsed("80"), "grüß")["/metrics"]
    request = h11.Request(
        method="GET", target="/metrics", headers=[(b"Host", b"x"), (b"Authorization", "Bearer grüß".encode())]
    )
    assert answered(handler, request).status == 200
