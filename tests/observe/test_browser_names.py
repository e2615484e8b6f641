"""Which names are those of browsers, and which only look like one."""

import pytest

from support.snapshots import process

BROWSERS = [
    "chrome", "chromium", "chromium-browse", "chromium-shell", "google-chrome", "google-chrome-s",
    "chrome-headless", "headless_shell", "chrome_crashpad", "chromedriver", "chrome-sandbox",
    "chrome-wrapper", "msedge", "msedgedriver", "msedge_crashpad", "microsoft-edge", "microsoft-edge-",
    "brave", "brave-browser", "brave-browser-s", "opera", "opera-stable", "operadriver",
    "opera_crashrepo", "vivaldi", "vivaldi-bin", "vivaldi-stable", "firefox", "firefox-esr",
    "firefox-bin", "geckodriver", "forkserver", "crashhelper", "WebExtensions", "MiniBrowser",
    "WebKitWebProces", "WebKitNetworkPr", "WebKitGPUProces",
]  # fmt: skip
WITH_SPACES = [
    "Web Content",
    "Isolated Web Co",
    "Isolated Servic",
    "Privileged Cont",
    "file:// Content",
    "Socket Process",
    "RDD Process",
    "GPU Process",
    "Utility Process",
]
INNOCENTS = [
    "python", "python3", "celery", "node", "npm", "redis-server", "java", "ruby", "php", "go", "sh",
    "bash", "tini", "recyclery", "chroma", "chroma-server", "chrony", "chronyd", "chromatic",
    "firefox-export", "firefoxd", "myfirefox", "bravery", "brave-server", "operator", "opera-stats",
    "operations", "edge", "edge-proxy", "msedge-export", "msedgesync", "vivaldi-tools", "geckos", "gecko",
    "headless", "shell", "web-content", "WebContent", "utility", "socket-process", "rdd", "Web", "WebKit",
    "WebKitGTK", "MiniBrowser2", "forkserver2", "fork-server", "crash", "crashhelper2", "playwright",
    "puppeteer", "selenium", "gunicorn", "uwsgi", "ffmpeg", "soffice.bin", "wkhtmltopdf",
]  # fmt: skip


@pytest.mark.parametrize("name", [*BROWSERS, *WITH_SPACES])
def test_a_browsers_process_is_known_by_its_name(name: str) -> None:
    assert len(name) <= 15
    assert process(20, name=name).is_browser


@pytest.mark.parametrize("name", INNOCENTS)
def test_a_program_whose_name_only_looks_like_a_browsers_is_none(name: str) -> None:
    assert not process(20, name=name).is_browser


@pytest.mark.parametrize("name", ["chromedriver", "geckodriver", "msedgedriver", "operadriver"])
def test_a_driver_is_known(name: str) -> None:
    assert process(20, name=name).is_driver


@pytest.mark.parametrize("name", ["chrome_crashpad", "msedge_crashpad", "opera_crashrepo", "crashhelper"])
def test_a_crash_reporter_is_known(name: str) -> None:
    assert process(20, name=name).is_crashpad
