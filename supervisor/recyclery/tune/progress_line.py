"""How far a run is, in a line."""

from __future__ import annotations

from recyclery.tune.windows import Level

BAR = 20


def format_progress(done: int, total: int, left_seconds: float | None, level: Level | None) -> str:
    """Return the line: windows done, the time left where it is known, and the level that runs now."""
    filled = BAR * done // total if total else BAR
    parts = [f"[{'#' * filled}{'.' * (BAR - filled)}] {done}/{total} windows"]
    if done < total:
        parts.append("time left not known yet" if left_seconds is None else f"{clock(left_seconds)} left")
    if level is not None:
        parts.append(f"now {format_level(level)}")
    return ", ".join(parts)


def format_level(level: Level) -> str:
    """Return a level as it is written everywhere: concurrency x tasks per child."""
    return f"{level.concurrency} x {level.max_tasks_per_child}"


def clock(seconds: float) -> str:
    """Return a time left as it is read at a glance: 45 s, 12 min, 1 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
