"""Wakes the loop when a child, a chromedriver or a browser exits, which somebody may have killed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable

from recyclery.observe.snapshot import ProcessKey, Snapshot

# The exits of further processes are observed at the next tick.
MOST_WATCHED = 500


class ExitWatcher:
    """Holds a pidfd (pidfd_open(2)) for each watched process; without pidfds exits wait for the next tick."""

    def __init__(self, on_exit: Callable[[], None]) -> None:
        self._on_exit = on_exit
        self._files: dict[ProcessKey, int] = {}

    def watch(self, wanted: Iterable[ProcessKey]) -> None:
        """Watch these processes and no others."""
        keys = set(wanted)
        for key in self._files.keys() - keys:
            self._drop(key)
        for key in keys - self._files.keys():
            if len(self._files) < MOST_WATCHED:
                self._begin(key)

    def close(self) -> None:
        """Stop watching."""
        self.watch(())

    def _begin(self, key: ProcessKey) -> None:
        try:
            file = os.pidfd_open(key.pid)
        except OSError:
            return
        self._files[key] = file
        asyncio.get_running_loop().add_reader(file, self._ended, key)

    def _ended(self, key: ProcessKey) -> None:
        # A pidfd stays readable after the exit.
        asyncio.get_running_loop().remove_reader(self._files[key])
        self._on_exit()

    def _drop(self, key: ProcessKey) -> None:
        file = self._files.pop(key)
        asyncio.get_running_loop().remove_reader(file)
        os.close(file)


def find_watched(snapshot: Snapshot) -> Iterable[ProcessKey]:
    """Yield the processes whose exit leaves something behind: children, drivers and topmost browsers."""
    for child in snapshot.children:
        drivers = {process.pid for process in child.processes if process.is_driver}
        browsers = {process.pid for process in child.processes if process.is_browser}
        for process in child.processes:
            top = process.parent in drivers or process.parent not in browsers
            if process.pid == child.owner.pid or (process.is_browser and top and not process.is_defunct):
                yield process.key
