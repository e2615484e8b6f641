"""The browser that a caller asks for, validated, and the Chrome options for it."""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recyclery_worker.browser.driver import import_selenium, is_sandbox_usable

if TYPE_CHECKING:
    from selenium.webdriver.chrome.options import Options

STRATEGIES = ("normal", "eager", "none")

# docs/browsers.md explains each, with the command that measures its effect.
FLAGS = (
    "--headless=new",
    "--disable-component-update",  # Its downloads have filled disks.
)
LOCAL_FLAGS = (
    "--remote-debugging-pipe",  # Chrome leaves 0.2 s after chromedriver dies, instead of never.
    "--disable-dev-shm-usage",  # A container's /dev/shm has 64 MB; full, it crashes tabs.
)


@dataclass(frozen=True)
class BrowserRequest:
    """A browser as asked for; raises ValueError for invalid arguments."""

    page_load_timeout_seconds: float = 30.0
    command_timeout_seconds: float = 60.0
    window_size: tuple[int, int] = (1280, 800)
    arguments: Sequence[str] = ()
    options: "Options | None" = None
    page_load_strategy: str | None = None
    download_dir: Path | None = None
    proxy: str | None = None
    user_agent: str | None = None

    def __post_init__(self) -> None:
        page, command = self.page_load_timeout_seconds, self.command_timeout_seconds
        if command <= page:
            problem = "command_timeout_seconds must be above page_load_timeout_seconds"
            raise ValueError(f"{problem}: {command} and {page}")
        strategy = self.page_load_strategy
        if strategy not in {None, *STRATEGIES}:
            raise ValueError(f"page_load_strategy is {strategy!r}: it must be one of {', '.join(STRATEGIES)}")
        if self.proxy is not None and "@" in self.proxy:
            # Chrome takes no password from a flag, and every error would show it.
            raise ValueError("proxy has a user name in it, which Chrome does not take: give host and port")

    def make_options(self, profile: Path | None) -> "Options":
        """Return Chrome's options, for a browser on a Grid (`profile` is None) or on this machine."""
        chosen = copy.deepcopy(self.options or import_selenium().ChromeOptions())
        for flag in [*self.list_flags(profile), *self.arguments]:
            chosen.add_argument(flag)
        if sum(argument.startswith("--user-data-dir") for argument in chosen.arguments) > (profile is not None):
            raise ValueError("--user-data-dir: browser() gives each session a profile folder of its own")
        if self.page_load_strategy is not None:
            chosen.page_load_strategy = self.page_load_strategy
        # Debian's Chromium opens a search engine's page first, and chromedriver's first command waits for it:
        # where its name cannot be resolved, one start of four takes 5 s longer.
        preferences: dict[str, Any] = {"session.restore_on_startup": 4, "session.startup_urls": ["about:blank"]}
        folder = self.download_dir or (profile / "downloads" if profile is not None else None)
        if folder is not None:
            preferences |= {
                "download.default_directory": str(Path(folder).absolute()),
                "download.prompt_for_download": False,
            }
        given: dict[str, Any] = chosen.experimental_options.get("prefs", {})
        chosen.add_experimental_option("prefs", preferences | given)
        if "goog:loggingPrefs" not in chosen.capabilities:
            # For the console log in the evidence of a failure.
            chosen.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        return chosen

    def list_flags(self, profile: Path | None) -> list[str]:
        """Return our flags for Chrome, which precede the caller's."""
        flags = [*FLAGS, f"--window-size={self.window_size[0]},{self.window_size[1]}"]
        if self.proxy is not None:
            flags.append(f"--proxy-server={self.proxy}")
        if self.user_agent is not None:
            flags.append(f"--user-agent={self.user_agent}")
        if profile is not None:
            flags += [*LOCAL_FLAGS, f"--user-data-dir={profile}"]
            if not is_sandbox_usable():
                flags.append("--no-sandbox")
        return flags

    def key(self) -> str:
        """Return a key that is equal for callers that can share a kept browser."""
        capabilities = self.make_options(None).to_capabilities()
        return json.dumps([capabilities, str(self.download_dir)], sort_keys=True, default=str)
