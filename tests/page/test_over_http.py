"""The page and its API over HTTP: who may read them, how one signs in, and what none of it does."""

import http.client
import json
import re
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import recyclery.http.server
from recyclery.http.auth import MAX_ATTEMPTS
from recyclery.http.server import MAX_BODY_BYTES
from support.pages import ODD_TASK, Served, serving_page
from support.waiting import wait_for

TOKEN = "grüß a-token+of its%own&"
DATA = ["/api/status", "/api/history?span=1h", "/api/leaks"]


@pytest.fixture
def local(recorded: Path) -> Iterator[Served]:
    """The page on loopback."""
    with serving_page(recorded) as served:
        yield served


@pytest.fixture
def public(recorded: Path) -> Iterator[Served]:
    """The page on every interface, behind a token."""
    with serving_page(recorded, host="0.0.0.0", token=TOKEN) as served:
        yield served


def ask(
    served: Served, path: str, method: str = "GET", body: str | None = None, **headers: str
) -> tuple[HTTPResponse, str]:
    """Ask once, as soon as somebody answers."""
    named = {name.replace("_", "-"): value.encode() for name, value in headers.items()}

    def try_to() -> tuple[HTTPResponse, str] | None:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
        try:
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return answer, answer.read().decode()
        except ConnectionRefusedError:
            return None
        finally:
            connection.close()

    return wait_for(try_to, "the page is served")


def sign_in(served: Served, token: str, **headers: str) -> HTTPResponse:
    """Send the form."""
    return ask(served, "/sign-in", "POST", f"token={quote(token)}", **headers)[0]


def session_of(answer: HTTPResponse) -> str:
    """Return the cookie that an answer sets, as a browser sends it."""
    return (answer.getheader("Set-Cookie") or "").partition(";")[0]


def document(served: Served, path: str, **headers: str) -> Any:
    """Return what the API says."""
    answer, text = ask(served, path, **headers)
    assert answer.status == 200
    return json.loads(text)


def test_on_loopback_the_page_and_its_api_stand_open(local: Served) -> None:
    assert [ask(local, path)[0].status for path in ["/", *DATA]] == [200] * 4
    answer, _ = ask(local, "/sign-in")
    assert (answer.status, answer.getheader("Location")) == (303, "/")


def test_what_is_served_may_load_and_frame_nothing_from_elsewhere(local: Served) -> None:
    for path in ["/", "/files/page.js", "/files/page.css", *DATA]:
        answer, _ = ask(local, path)
        policy = answer.getheader("Content-Security-Policy") or ""
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.getheader("X-Content-Type-Options") == "nosniff"
        assert answer.getheader("Referrer-Policy") == "no-referrer"
        assert answer.getheader("Cache-Control") == "no-store"


def test_everything_that_the_page_names_is_served_with_its_kind(local: Served) -> None:
    named = set(re.findall(r'(?:src|href)="(/[^"]+)"', ask(local, "/")[1]))
    named |= {f"/files/{name}" for name in re.findall(r'from "\./([^"]+)"', ask(local, "/files/page.js")[1])}
    kinds = {path: ask(local, path)[0].getheader("Content-Type") for path in named}
    assert {"/files/page.js", "/files/chart.js", "/files/page.css", "/files/icon.svg"} <= kinds.keys()
    assert {kind and kind.partition(";")[0] for kind in kinds.values()} == {
        "text/javascript",
        "text/css",
        "image/svg+xml",
    }


def test_elsewhere_nothing_is_told_without_the_token(public: Served) -> None:
    assert [ask(public, path)[0].status for path in DATA] == [401] * 3
    answer, text = ask(public, "/")
    assert (answer.status, answer.getheader("Location")) == (303, "/sign-in")
    assert ODD_TASK not in text


def test_elsewhere_the_header_opens_the_api(public: Served) -> None:
    assert document(public, "/api/status", Authorization=f"Bearer {TOKEN}")["signed_in"] is False


def test_without_a_token_set_elsewhere_the_page_says_what_to_set(recorded: Path) -> None:
    with serving_page(recorded, host="0.0.0.0") as served:
        for method, path in (("GET", "/"), ("GET", "/sign-in"), ("POST", "/sign-in")):
            answer, text = ask(served, path, method, "token=")
            assert answer.status == 403
            assert "set RECYCLERY_HTTP_TOKEN" in text


def test_who_brings_the_token_gets_a_session_that_opens_all_and_is_not_the_token(public: Served) -> None:
    answer = sign_in(public, TOKEN)
    assert (answer.status, answer.getheader("Location")) == (303, "/")
    session = session_of(answer)
    assert "token" not in session
    assert ask(public, "/", Cookie=session)[0].status == 200
    assert document(public, "/api/status", Cookie=session)["signed_in"] is True


def test_signing_out_has_the_browser_forget_its_session(public: Served) -> None:
    answer, _ = ask(public, "/sign-out", "POST", Cookie=session_of(sign_in(public, TOKEN)))
    assert "Max-Age=0" in (answer.getheader("Set-Cookie") or "")
    assert answer.getheader("Location") == "/sign-in"


def test_a_wrong_token_opens_nothing_and_too_many_shut_the_form_for_a_moment_also_for_the_right_one(
    public: Served, caplog: pytest.LogCaptureFixture
) -> None:
    session = session_of(sign_in(public, TOKEN))
    wrong = [sign_in(public, f"wrong {number}") for number in range(MAX_ATTEMPTS)]
    assert [answer.status for answer in wrong] == [401] * MAX_ATTEMPTS
    assert not any(session_of(answer) for answer in wrong)
    shut = sign_in(public, TOKEN)
    assert shut.status == 429
    assert int(shut.getheader("Retry-After") or 0) >= 1
    # Who is in already is not kept out.
    assert ask(public, "/api/status", Cookie=session)[0].status == 200
    assert ask(public, "/api/status", Authorization=f"Bearer {TOKEN}")[0].status == 200
    assert "several wrong tokens" in caplog.text
    assert "wrong 1" not in caplog.text


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
def test_a_form_from_another_site_is_refused(public: Served, path: str) -> None:
    answer, _ = ask(public, path, "POST", f"token={quote(TOKEN)}", Origin="http://evil.example")
    assert answer.status == 403
    assert answer.getheader("Set-Cookie") is None


def test_nothing_is_changed_by_get_and_nothing_else_taken_by_post(public: Served) -> None:
    answer, _ = ask(public, "/sign-out")
    assert (answer.status, answer.getheader("Allow")) == (405, "POST")
    assert [ask(public, path, "POST", "")[0].status for path in ["/", *DATA, "/nothing"]] == [405] * 5


def test_a_body_that_is_too_large_or_never_comes_is_not_waited_for(
    public: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recyclery.http.server, "REQUEST_SECONDS", 0.5)
    assert ask(public, "/sign-in", "POST", "x" * (MAX_BODY_BYTES + 1))[0].status == 413
    assert ask(public, "/sign-in", "POST", None, Content_Length="1", Connection="close")[0].status == 408


def test_the_status_is_what_top_shows_with_what_is_wrong(local: Served) -> None:
    now = document(local, "/api/status")
    assert now["status"]["pools"]["fast"]["children"][1]["task"] == ODD_TASK
    assert now["troubles"][0]["text"] == "slow is on hold and takes no tasks, 2 tasks wait"


def test_a_span_that_is_none_is_refused_with_those_there_are(local: Served) -> None:
    answer, text = ask(local, "/api/history?span=1y")
    assert answer.status == 400
    assert "15m, 1h, 6h, 24h, 7d" in text


def test_without_a_history_the_page_says_so(tmp_path: Path) -> None:
    with serving_page(tmp_path / "history.db") as served:
        assert "there is no history" in document(served, "/api/history?span=1h")["problem"]
        assert "there is no history" in document(served, "/api/leaks")["problem"]


def test_the_leaks_are_those_of_recyclery_leaks(local: Served) -> None:
    (pool,) = document(local, "/api/leaks")["report"]["pools"]
    assert pool["tasks"][0]["shape"] == "leak"
    assert ODD_TASK in {task["task"] for task in pool["tasks"]}
