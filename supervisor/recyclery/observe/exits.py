"""Tells at once that a process has ended which somebody may have killed: a child, a chromedriver, a browser."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable

from recyclery.observe.snapshot import ProcessKey, Snapshot

# Beyond this the next look is soon enough.
MOST_WATCHED = 500


class ExitWatcher:
    """A pidfd (pidfd_open(2)) for each process watched; where the kernel has none, the next look must do."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._files: dict[ProcessKey, int] = {}

    def watch(self, wanted: Iterable[ProcessKey]) -> None:
        """Watch just these from now on."""
        keys = set(wanted)
        for key in self._files.keys() - keys:
            self._drop(key)
        for key in keys - self._files.keys():
            if len(self._files) < MOST_WATCHED:
                self._begin(key)

    def close(self) -> None:
        """Watch nothing more."""
        self.watch(())

    def _begin(self, key: ProcessKey) -> None:
        try:
            file = os.pidfd_open(key.pid)
        except OSError:
            return
        self._files[key] = file
        asyncio.get_running_loop().add_reader(file, self._ended, key)

    def _ended(self, key: ProcessKey) -> None:
        # It stays readable: one word is enough, and the next look forgets the process.
        asyncio.get_running_loop().remove_reader(self._files[key])
        self._tell()

    def _drop(self, key: ProcessKey) -> None:
        file = self._files.pop(key)
        asyncio.get_running_loop().remove_reader(file)
        os.close(file)


def find_watched(snapshot: Snapshot) -> Iterable[ProcessKey]:
    """Yield the processes whose end leaves something behind: children, and browsers that no browser started."""
    for child in snapshot.children:
        drivers = {process.pid for process in child.processes if process.is_driver}
        browsers = {process.pid for process in child.processes if process.is_browser}
        for process in child.processes:
            top = process.parent in drivers or process.parent not in browsers
            if process.pid == child.owner.pid or (process.is_browser and top and not process.is_defunct):
                yield process.key
