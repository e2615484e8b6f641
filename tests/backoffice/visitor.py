"""A visitor of the site without a browser: keeps cookies, follows redirects, returns every status."""

import json
import re
from http.cookiejar import CookieJar
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, ProxyHandler, build_opener

TIMEOUT_SECONDS = 5.0


class Visitor:
    """One visitor with his own cookies. After each visit: `status`, `url` and `text`."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.cookies = CookieJar()
        self._opener: OpenerDirector = build_opener(ProxyHandler({}), HTTPCookieProcessor(self.cookies))
        self.status = 0
        self.url = ""
        self.text = ""

    def get(self, path: str) -> "Visitor":
        """Visit `path`."""
        return self._open(path, None)

    def post(self, path: str, **form: str) -> "Visitor":
        """Send `form` to `path`."""
        return self._open(path, urlencode(form).encode())

    def log_in(self, user: str = "ana", password: str = "demo") -> "Visitor":
        """Fill in the login form."""
        self.get("/login")
        return self.post("/login", user=user, password=password, csrf=self.read_csrf())

    def read_csrf(self) -> str:
        """Read the CSRF token out of the page just visited."""
        found = re.search(r'name="csrf" value="([^"]+)"', self.text)
        assert found, self.text
        return found[1]

    def read_page(self, page: int) -> dict[str, Any]:
        """Fetch one page of documents from the JSON endpoint."""
        content: dict[str, Any] = json.loads(self.get(f"/api/documents?page={page}").text)
        return content

    @property
    def path(self) -> str:
        """Where the redirects led."""
        return self.url.removeprefix(self.site)

    def _open(self, path: str, data: bytes | None) -> "Visitor":
        try:
            with self._opener.open(self.site + path, data, TIMEOUT_SECONDS) as answer:
                self.status, self.url, self.text = answer.status, answer.url, answer.read().decode()
        except HTTPError as error:
            with error:
                self.status, self.url, self.text = error.code, error.url or "", error.read().decode()
        return self
