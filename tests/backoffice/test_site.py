"""The tax office's site keeps its visitors apart, shows each his documents, and fails when asked to."""

import json
import subprocess
import sys
import time
from dataclasses import asdict
from http.client import RemoteDisconnected
from json import JSONDecodeError
from pathlib import Path
from urllib.request import urlopen

import pytest

from backoffice.visitor import Visitor
from taxoffice.documents import DOCUMENTS_PER_USER, PAGES_PER_USER, list_documents
from taxoffice.server import running_site

BACKOFFICE = Path(__file__).parents[2] / "examples" / "backoffice"


@pytest.fixture
def visitor(site: str) -> Visitor:
    return Visitor(site)


def test_a_visitor_without_a_login_is_sent_to_the_login(visitor: Visitor) -> None:
    assert visitor.get("/").path == "/login"


def test_a_good_login_leads_to_the_documents(visitor: Visitor) -> None:
    visitor.log_in()
    assert (visitor.status, visitor.path) == (200, "/documents")
    assert '<span id="user">ana</span>' in visitor.text


def test_a_wrong_password_is_refused_with_a_reason(visitor: Visitor) -> None:
    visitor.log_in(password="wrong")
    assert visitor.status == 401
    assert "The user or the password is wrong." in visitor.text


def test_after_a_wrong_password_the_same_form_takes_the_right_one(visitor: Visitor) -> None:
    visitor.log_in(password="wrong")
    visitor.post("/login", user="ana", password="demo", csrf=visitor.read_csrf())
    assert visitor.path == "/documents"


def test_a_login_with_a_foreign_csrf_token_is_forbidden(site: str, visitor: Visitor) -> None:
    foreign = Visitor(site).get("/login").read_csrf()
    visitor.get("/login")
    assert visitor.post("/login", user="ana", password="demo", csrf=foreign).status == 403


def test_the_login_changes_the_session_token(visitor: Visitor) -> None:
    before = [cookie.value for cookie in visitor.get("/login").cookies]
    visitor.post("/login", user="ana", password="demo", csrf=visitor.read_csrf())
    assert [cookie.value for cookie in visitor.cookies] != before


def test_logout_ends_the_session_for_its_old_token_too(visitor: Visitor) -> None:
    visitor.log_in()
    (cookie,) = visitor.cookies
    visitor.post("/logout", csrf=visitor.read_csrf())
    assert visitor.path == "/login?reason=logout"
    visitor.cookies.set_cookie(cookie)
    assert visitor.get("/api/documents").status == 401


def test_logout_without_the_csrf_token_does_nothing(visitor: Visitor) -> None:
    visitor.log_in()
    assert visitor.post("/logout").status == 403
    assert visitor.get("/documents").path == "/documents"


def test_a_session_ends_when_its_time_is_over() -> None:
    now = [0.0]
    with running_site(session_seconds=600, clock=lambda: now[0]) as site:
        visitor = Visitor(site).log_in()
        now[0] = 599.0
        assert visitor.get("/documents").path == "/documents"
        now[0] = 600.0
        assert visitor.get("/documents").path == "/login?reason=expired"
        assert "Your session has expired." in visitor.text


def test_the_pages_together_hold_each_document_once_in_order(visitor: Visitor) -> None:
    visitor.log_in()
    pages = [visitor.read_page(page) for page in range(1, PAGES_PER_USER + 1)]
    documents = [document for page in pages for document in page["documents"]]
    assert len(documents) == DOCUMENTS_PER_USER
    assert documents == [asdict(document) for document in list_documents("ana")]


def test_a_page_beyond_the_last_is_empty(visitor: Visitor) -> None:
    assert visitor.log_in().read_page(PAGES_PER_USER + 1)["documents"] == []


def test_documents_are_the_same_in_every_run_and_differ_by_user() -> None:
    assert [document.folio for document in list_documents("ana")][:2] == [8731566, 8731565]
    assert list_documents("ana") == list_documents("ana")
    assert list_documents("ana") != list_documents("eva")


def test_the_json_endpoint_refuses_visitors_without_a_login(visitor: Visitor) -> None:
    assert visitor.get("/api/documents").status == 401


@pytest.mark.parametrize("query", ["page=0", "page=x", "delay=-1", "delay=nan", "heavy=1e9", "trouble=no"])
def test_a_query_that_makes_no_sense_is_a_bad_request(visitor: Visitor, query: str) -> None:
    visitor.log_in()
    assert visitor.get(f"/api/documents?{query}").status == 400


def test_delay_makes_an_answer_wait(visitor: Visitor) -> None:
    start = time.monotonic()
    visitor.get("/login?delay=0.2")
    assert time.monotonic() - start >= 0.2


def test_heavy_tells_the_page_how_much_to_carry(visitor: Visitor) -> None:
    visitor.log_in()
    assert "mib < 30;" in visitor.get("/documents?heavy=30").text


def test_trouble_error_is_a_500(visitor: Visitor) -> None:
    assert visitor.get("/login?trouble=error").status == 500


def test_trouble_cut_ends_the_connection_without_an_answer(visitor: Visitor) -> None:
    with pytest.raises(RemoteDisconnected):
        visitor.get("/login?trouble=cut")


def test_trouble_malformed_breaks_the_json_off(visitor: Visitor) -> None:
    visitor.log_in()
    visitor.get("/api/documents?trouble=malformed")
    assert visitor.status == 200
    with pytest.raises(JSONDecodeError):
        json.loads(visitor.text)


def test_trouble_loop_leads_from_a_good_login_back_to_the_login(visitor: Visitor) -> None:
    assert visitor.log_in(user="ana+trouble=loop").path == "/login"


def test_trouble_never_sends_half_a_page_and_no_end(site: str) -> None:
    with urlopen(f"{site}/login?trouble=never", timeout=5) as answer:
        promised_bytes = int(answer.headers["Content-Length"])
        assert answer.read(promised_bytes // 2)
        answer.fp.raw._sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            answer.read()


def test_a_users_name_can_carry_the_trouble(visitor: Visitor) -> None:
    assert visitor.log_in(user="ana+trouble=error").status == 500


def test_a_name_with_a_wish_has_the_same_documents(visitor: Visitor) -> None:
    visitor.log_in(user="ana+heavy=1")
    assert visitor.read_page(1)["documents"][0]["folio"] == 8731566


def test_the_command_says_first_where_it_listens_and_ends_on_sigterm() -> None:
    command = [sys.executable, "-m", "taxoffice", "--port", "0"]
    with subprocess.Popen(command, cwd=BACKOFFICE, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            word, url = server.stdout.readline().split()
            assert word == "site:"
            assert Visitor(url).get("/health").text == "ok\n"
        finally:
            server.terminate()
    assert server.returncode == 0
