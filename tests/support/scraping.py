"""/metrics, as Prometheus reads it."""

from urllib.error import HTTPError
from urllib.request import Request, urlopen


def scrape(port: int, token: str = "") -> tuple[int, str]:
    """Return the status and the text of /metrics; 0 where nobody answers."""
    request = Request(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {token}"})
    try:
        with urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""
