"""The names by which browsers, their drivers and their helpers are known: those of the executables.

The kernel keeps the first 15 bytes of a name (TASK_COMM_LEN in linux/sched.h). A program of another name that
only begins like one of these is none, but for those of Chrome, which come with many endings.
"""

KERNEL_NAME_BYTES = 15

CHROME = ("chrome", "chromium", "google-chrome", "headless_shell")
"""With any ending: chromium-browser, chrome-headless-shell, chrome_crashpad_handler, chromedriver."""

# Built from Chromium's code: all processes of a browser have its name.
CHROMIUM_BASED = (
    "msedge", "microsoft-edge", "microsoft-edge-stable", "brave", "brave-browser", "brave-browser-stable",
    "opera", "opera-stable", "vivaldi", "vivaldi-bin", "vivaldi-stable",
)  # fmt: skip
# Of Firefox every process has a name of its own (dom/ipc/ContentChild.cpp, nsEmbedFunctions.cpp).
FIREFOX = (
    "firefox", "firefox-esr", "firefox-bin", "forkserver", "Web Content", "Isolated Web Content",
    "Isolated Service Worker", "Privileged Content", "WebExtensions", "file:// Content", "Socket Process",
    "RDD Process", "GPU Process", "Utility Process",
)  # fmt: skip
# As Playwright starts it.
WEBKIT = ("MiniBrowser", "WebKitWebProcess", "WebKitNetworkProcess", "WebKitGPUProcess")
DRIVERS = ("chromedriver", "geckodriver", "msedgedriver", "operadriver")
# Each leaves its browser's session, and ends some time after it.
CRASH_REPORTERS = ("chrome_crashpad_handler", "msedge_crashpad_handler", "opera_crashreporter", "crashhelper")


def cut(*names: str) -> frozenset[str]:
    """Return names as the kernel keeps them."""
    return frozenset(name[:KERNEL_NAME_BYTES] for name in names)


_OTHERS = cut(*CHROMIUM_BASED, *FIREFOX, *WEBKIT, *DRIVERS, *CRASH_REPORTERS)
CRASH_REPORTER_NAMES = cut(*CRASH_REPORTERS)


def is_browser_name(name: str) -> bool:
    """Return whether a process of this name, in the kernel's 15 bytes, belongs to a browser."""
    return name.startswith(CHROME) or name in _OTHERS
