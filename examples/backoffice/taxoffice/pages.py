"""The site's pages, as HTML text."""

from html import escape
from importlib.resources import files
from string import Template


def draw_login(csrf: str, problem: str = "", notice: str = "") -> str:
    """Draw the login form, with what went wrong before (`problem`) or what happened (`notice`)."""
    return _draw("Log in", "login.html", csrf=escape(csrf), message=_draw_message(problem, notice))


def draw_documents(user: str, csrf: str, heavy_mib: float = 0.0) -> str:
    """Draw the page whose script fetches and shows the documents; `heavy_mib` makes it a burden."""
    return _draw(
        "Documents received",
        "documents.html",
        user=escape(user),
        csrf=escape(csrf),
        heavy_mib=f"{heavy_mib:g}",
    )


def draw_fault(status: int, text: str) -> str:
    """Draw an error page."""
    body = f'<main class="card"><h1 id="fault">{status} {escape(text)}</h1><a href="/">Start again</a></main>'
    return _frame(f"{status}", body)


def _draw_message(problem: str, notice: str) -> str:
    if problem:
        return f'<p id="problem" role="alert">{escape(problem)}</p>'
    return f'<p id="notice" role="status">{escape(notice)}</p>' if notice else ""


def _draw(title: str, template: str, **fields: str) -> str:
    return _frame(title, _TEMPLATES[template].substitute(fields))


def _frame(title: str, body: str) -> str:
    return _TEMPLATES["frame.html"].substitute(title=escape(title), body=body)


def _read_template(name: str) -> Template:
    return Template((files(__package__) / "templates" / name).read_text(encoding="utf-8"))


_TEMPLATES = {name: _read_template(name) for name in ("frame.html", "login.html", "documents.html")}
