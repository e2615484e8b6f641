"""What a level does when tasks come at their own times, whether or not the ones before are done. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from recyclery.tune.marks import TaskRun
from recyclery.tune.windows import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWindow:
    """A window, and the load in it. Its tasks are those that came in it, whenever they ended."""

    load: str
    """As it was asked for."""
    offered_per_second: float
    backlog_middle: int
    """Tasks that had come and not ended, half way through."""
    backlog_end: int
    unfinished: int
    """Of those, how many had not ended a minute later either: their times are not among the window's."""
    window: Window

    @property
    def keeps_up(self) -> bool:
        """Whether what waits does not grow: beyond the tasks that can be in work, a tenth of what came."""
        came = self.offered_per_second * self.window.seconds
        grown = self.backlog_end - self.backlog_middle
        return grown <= max(2.0 * self.window.level.concurrency, 0.1 * came)


def count_backlog(tasks: Iterable[TaskRun], at: float) -> int:
    """Return how many tasks had come and not ended at a moment."""
    return sum(task.due <= at and (task.ended is None or task.ended > at) for task in tasks)
