"""The site on a socket: requests in, answers out, slowly or half if the visitor wishes so."""

import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from taxoffice.office import DEFAULT_PASSWORD, Office, Reply, Request
from taxoffice.sessions import SESSION_SECONDS, Sessions
from taxoffice.wishes import Trouble

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8600
MAX_FORM_BYTES = 65_536


class SiteServer(ThreadingHTTPServer):
    """The listening server; one thread per connection."""

    daemon_threads = True
    # A storm opens many connections at once; the standard five would turn some away.
    request_queue_size = 128

    def __init__(self, office: Office, host: str = DEFAULT_HOST, port: int = 0) -> None:
        self.office = office
        super().__init__((host, port), SiteHandler)

    @property
    def url(self) -> str:
        """Where the site is, e.g. `http://127.0.0.1:8600`."""
        return f"http://{self.server_name}:{self.server_port}"

    def server_bind(self) -> None:
        """Bind without asking a name server for our own name, as HTTPServer does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: browsers that are killed while they read are what this site is for."""


class SiteHandler(BaseHTTPRequestHandler):
    """Carries one connection's requests to the office and its replies back."""

    server: SiteServer
    protocol_version = "HTTP/1.1"
    # One write per answer. Header and body in two would wait for each other (Nagle, delayed ACK).
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer a GET."""
        self._answer({})

    def do_POST(self) -> None:
        """Answer a POST of a form."""
        length_bytes = int(self.headers.get("Content-Length", "0"))
        if length_bytes > MAX_FORM_BYTES:
            self.send_error(413)
            return
        body = self.rfile.read(length_bytes).decode(errors="replace")
        self._answer(dict(parse_qsl(body)))

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: the first line of stdout is a promise, and the rest helps nobody."""

    def _answer(self, form: dict[str, str]) -> None:
        parts = urlsplit(self.path)
        request = Request(self.command, parts.path, dict(parse_qsl(parts.query)), form, self._read_token())
        reply = self.server.office.answer(request)
        if reply.wishes.delay_seconds:
            time.sleep(reply.wishes.delay_seconds)
        if reply.wishes.trouble is Trouble.CUT:
            self.close_connection = True
            return
        self._send(reply)

    def _send(self, reply: Reply) -> None:
        body = reply.body.encode()
        never_ends = reply.wishes.trouble is Trouble.NEVER
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if reply.location is not None:
            self.send_header("Location", reply.location)
        if reply.token is not None:
            lifetime = "" if reply.token else "; Max-Age=0"
            cookie = f"session={reply.token}; Path=/; HttpOnly; SameSite=Lax{lifetime}"
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if never_ends else body)
        self.wfile.flush()
        if never_ends:
            self.rfile.read(1)  # returns when the visitor gives up
            self.close_connection = True

    def _read_token(self) -> str | None:
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get("session")
        except CookieError:
            return None
        return cookie.value if cookie else None


def open_site(
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    password: str = DEFAULT_PASSWORD,
    session_seconds: float = SESSION_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> SiteServer:
    """Open the site's socket (`port` 0: any free one). Call `serve_forever` on what you get.

    Raises OSError if the port is taken.
    """
    return SiteServer(Office(Sessions(session_seconds, clock), password), host, port)


@contextmanager
def running_site(
    session_seconds: float = SESSION_SECONDS, clock: Callable[[], float] = time.monotonic
) -> Iterator[str]:
    """Run the site in a thread on a free port for the time of the block, and give its URL."""
    with open_site(port=0, session_seconds=session_seconds, clock=clock) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="taxoffice")
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()
