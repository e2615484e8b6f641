"""What was measured at a level."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Level:
    """A pair of settings to try."""

    concurrency: int
    max_tasks_per_child: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One measured window at one level, its warm-up left out.

    `waited_seconds` and `ran_seconds` belong to the tasks that ended in it, in the order they ended: the time
    from when a task was to come until it began, and from there until it ended.
    """

    level: Level
    repeat: int
    seconds: float
    waited_seconds: tuple[float, ...]
    ran_seconds: tuple[float, ...]
    errors: int
    base_floor_bytes: int
    """The container's floor with the pool's processes up and no task run yet."""
    peak_floor_bytes: int
    limit_bytes: int
    child_peak_bytes: tuple[int, ...]
    """For each child that ran tasks, the most that it and all it started held at a time."""
    recycles: tuple[tuple[str, int], ...]
    """How many children left, by reason."""
    oom_kills: int
    cpu_seconds: float
    cores: float
    """CPUs that the container may use."""
    failures: tuple[tuple[str, int], ...] = ()
    """How many tasks ended with an error, by its name."""
    stopped: str = ""
    """Why it was given up early; empty for a window that ran its time."""

    @property
    def done(self) -> int:
        """Tasks that ended in it."""
        return len(self.ran_seconds)

    @property
    def per_second(self) -> float:
        """Tasks that ended well each second; only of a window that ran."""
        return max(0, self.done - self.errors) / self.seconds
