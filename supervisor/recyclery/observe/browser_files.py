"""The folders and files that are made for one browser session and thrown away; never one that a user chose."""

import os
import tempfile
import time
from collections.abc import Container, Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from recyclery.observe.processes import AFTER_EXEC_SECONDS, read_proc_file
from recyclery.observe.snapshot import LeftoverFiles, Process, ProcessKey

SHM_FOLDER = Path("/dev/shm")  # noqa: S108  # Chrome's
# Profiles that `browser()` makes: their owner holds a lock on them, by which they are swept.
OWN_PREFIX = "recyclery-profile-"
# Names that chromedriver, Chromium and Chrome choose.
PREFIXES = ("org.chromium.", ".org.chromium.", "com.google.Chrome.", ".com.google.Chrome.", "scoped_dir")
# Profiles that geckodriver, Playwright and Puppeteer make, and remove when their browser has ended.
REMOVED_BY_MAKER = (
    "rust_mozprofile",
    "playwright_chromiumdev_profile-",
    "playwright_firefoxdev_profile-",
    "puppeteer_dev_chrome_profile-",
    "puppeteer_dev_firefox_profile-",
)
# Arguments for a browser's profile and its crash reports.
FOLDER_ARGUMENTS = ("--user-data-dir=", "--database=")
PROFILE_ARGUMENT = FOLDER_ARGUMENTS[0]
# Firefox's, with the folder in the next word.
PROFILE_WORDS = ("-profile", "--profile")
# The link in a profile to the socket of its browser, which lies in another folder.
SOCKET_LINK = "SingletonSocket"


def find_throwaway(path: Path) -> Path | None:
    """Return the throw-away folder or file that contains a path; None where there is none."""
    if ".." in path.parts:
        return None
    for base in (Path(tempfile.gettempdir()), SHM_FOLDER):
        if path != base and path.is_relative_to(base):
            top = base / path.relative_to(base).parts[0]
            if top.name.startswith((OWN_PREFIX, *PREFIXES, *REMOVED_BY_MAKER)):
                return top
    return None


def split_command(command: bytes) -> list[str]:
    """Return the arguments in /proc/PID/cmdline; Chrome rewrites its own with spaces between them."""
    return [os.fsdecode(word) for word in command.replace(b"\0", b" ").split(b" ")]


def find_named_folders(command: list[str]) -> Iterator[Path]:
    """Yield the throw-away folders in a command line, and that of its profile's socket, whoever chose that."""
    for before, word in pairwise(["", *command]):
        if before in PROFILE_WORDS and (folder := find_throwaway(Path(word))) is not None:
            yield folder
        for argument in FOLDER_ARGUMENTS:
            if word.startswith(argument):
                paths = [Path(word.removeprefix(argument))]
                if argument == PROFILE_ARGUMENT:
                    with suppress(OSError):
                        paths.append((paths[0] / SOCKET_LINK).readlink())
                yield from filter(None, map(find_throwaway, paths))


# The argument that chromedriver passes to every browser.
DRIVEN_FLAG = "--test-type=webdriver"
HELPER = "--type="
# chromedriver's folder for extensions: in no command line, empty, and made when the browser starts.
EXTENSIONS = "scoped_dir"
TOGETHER_SECONDS = 0.5
# A folder that another process used is tried again after this.
RETRY_REMOVAL_SECONDS = 30.0


@dataclass
class Folder:
    """The processes that name a folder, and since when none does."""

    users: set[ProcessKey] = field(default_factory=set)
    drivers: set[ProcessKey] = field(default_factory=set)
    ours: bool = False
    guessed: bool = False
    free_since: float | None = None
    tried: float | None = None
    """When its removal last failed because another process used it."""


class BrowserFiles:
    """Remembers the folders of all observed browsers; those of foreign browsers are never left over."""

    def __init__(self, inits: Container[int]) -> None:
        self._inits = inits
        self._read: set[ProcessKey] = set()
        self._driven: set[ProcessKey] = set()
        self._had_driver: set[ProcessKey] = set()
        self._folders: dict[Path, Folder] = {}
        self.orphaned_browsers: dict[ProcessKey, float] = {}
        """Browsers whose chromedriver has exited (init adopted them), and since when."""
        self.browsers_starting = False
        """Whether a browser has just started and its profile does not link to its socket yet."""

    def update(
        self, processes: Iterable[Process], owned: Container[int], at: float
    ) -> tuple[LeftoverFiles, ...]:
        """Update by the process table (`owned` are the pids with an owner); return the leftover files."""
        browsers = {
            process.key: process for process in processes if process.is_browser and not process.is_defunct
        }
        by_pid = {key.pid: key for key in browsers}
        self.browsers_starting = False
        for key in browsers.keys() - self._read:
            process = browsers[key]
            self._read_command(process, by_pid.get(process.parent), owned)
            # Between fork and exec it has its parent's command line, and its profile has no socket yet.
            if at - process.started > AFTER_EXEC_SECONDS:
                self._read.add(key)
        self._read &= browsers.keys()
        self._driven &= browsers.keys()
        drivers = {key.pid for key, process in browsers.items() if process.is_driver}
        self._had_driver |= {key for key in self._driven if browsers[key].parent in drivers}
        self._had_driver &= browsers.keys()
        self.orphaned_browsers = {
            key: self.orphaned_browsers.get(key, at)
            for key in self._driven
            # A crashpad handler is adopted by init before its exec, and looks like its browser until then.
            if browsers[key].parent in self._inits and (key in self._had_driver or key in self._read)
        }
        return tuple(self._leftover_files(browsers.keys(), at))

    def postpone_removal(self, folders: Iterable[Path], at: float) -> None:
        """Return these folders again only after RETRY_REMOVAL_SECONDS."""
        for path in folders:
            if path in self._folders:
                self._folders[path].tried = at

    def _read_command(self, process: Process, parent: ProcessKey | None, owned: Container[int]) -> None:
        command = split_command(read_proc_file(f"/proc/{process.pid}/cmdline"))
        chosen = [word.removeprefix(PROFILE_ARGUMENT) for word in command if word.startswith(PROFILE_ARGUMENT)]
        profiles = {find_throwaway(Path(path)) for path in chosen}
        named = {folder for folder in find_named_folders(command) if not folder.name.startswith(OWN_PREFIX)}
        guessed: set[Path] = set()
        self._driven.discard(process.key)
        if DRIVEN_FLAG in command and not any(word.startswith(HELPER) for word in command):
            self._driven.add(process.key)
            if process.pid in owned and named and named <= profiles:
                self.browsers_starting = True
            guessed = set(find_extensions(process)) - named
        drivers = {parent} if parent is not None and process.key in self._driven else set()
        for path in named | guessed:
            folder = self._folders.setdefault(path, Folder(guessed=path in guessed))
            folder.users.add(process.key)
            folder.ours |= process.pid in owned
            if path in guessed:
                folder.users |= drivers
            elif path in profiles:
                folder.guessed = False
                folder.drivers |= drivers

    def _leftover_files(self, living: Set[ProcessKey], at: float) -> Iterator[LeftoverFiles]:
        for path, folder in list(self._folders.items()):
            folder.users &= living
            if folder.users:
                folder.free_since = None
            elif not folder.ours or not os.path.lexists(path):
                del self._folders[path]
            else:
                folder.free_since = folder.free_since or at
                if folder.tried is not None and at - folder.tried < RETRY_REMOVAL_SECONDS:
                    continue
                yield LeftoverFiles(path, folder.free_since, frozenset(folder.drivers), folder.guessed)


def find_extensions(browser: Process) -> Iterator[Path]:
    """Yield the empty folders that chromedriver may have made when it started this browser."""
    # A folder has a wall clock time, a process a time since boot.
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    with os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            path = find_throwaway(Path(entry.path)) if EXTENSIONS in entry.name else None
            if path is None:
                continue
            try:
                made = entry.stat(follow_symlinks=False).st_mtime - booted
                together = abs(made - browser.started) < TOGETHER_SECONDS
                if together and entry.is_dir(follow_symlinks=False) and not any(path.iterdir()):
                    yield path
            except OSError:
                # Removed meanwhile, or not readable.
                continue
