"""browsers_site: not a benchmark; pages on loopback: a heavy one, a short one, one that never comes."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

HEAVY = """<!doctype html><title>loading</title><table id=t></table><script>
const rows = [];
for (let i = 0; i < 200000; i++) rows.push({number: i, issuer: "issuer " + i, amounts: [i, i * 2, i * 3]});
for (const row of rows.slice(0, 4000)) {
  const line = t.insertRow();
  for (const value of [row.number, row.issuer, ...row.amounts]) line.insertCell().textContent = value;
}
window.rows = rows; document.title = "done";
</script>"""
SHORT = """<!doctype html><title>loading</title><table id=t></table><script>
const rows = Array.from({length: 20000}, (_, i) => ({number: i, issuer: "issuer " + i}));
for (const row of rows.slice(0, 200)) {
  const line = t.insertRow();
  line.insertCell().textContent = row.number; line.insertCell().textContent = row.issuer;
}
window.rows = rows; document.title = "done";
</script>"""


class Server(http.server.ThreadingHTTPServer):
    """Serves until the block ends; `closing` lets the requests go that never are answered."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Pages)
        self.closing = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: browsers are killed while they load."""


class Pages(http.server.BaseHTTPRequestHandler):
    """Answers /heavy and /short; /never takes a request and keeps silent."""

    server: Server

    def do_GET(self) -> None:
        """Answer."""
        if self.path == "/never":
            self.server.closing.wait()
            return
        page = {"/heavy": HEAVY, "/short": SHORT}.get(self.path.partition("?")[0])
        with suppress(ConnectionError):
            self.send_response(200 if page else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write((page or "").encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def running_site() -> Iterator[str]:
    """Serve the pages; yield the address without the last slash."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
