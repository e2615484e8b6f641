"""Run the site: `python -m taxoffice --port 8600`."""

import argparse
import signal
import sys
from types import FrameType

from taxoffice.office import DEFAULT_PASSWORD
from taxoffice.server import DEFAULT_HOST, DEFAULT_PORT, open_site
from taxoffice.sessions import SESSION_SECONDS


def main() -> None:
    """Serve until SIGTERM or Ctrl-C. The first line of stdout says where."""
    parser = argparse.ArgumentParser(prog="python -m taxoffice", description=__doc__)
    parser.add_argument("--host", default=DEFAULT_HOST)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 picks a free one")
    parser.add_argument("--password", default=DEFAULT_PASSWORD, help="the password of every user")
    parser.add_argument("--session-seconds", type=float, default=SESSION_SECONDS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    with open_site(options.host, options.port, options.password, options.session_seconds) as server:
        print(f"site: {server.url}", flush=True)
        server.serve_forever()


def _leave(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
