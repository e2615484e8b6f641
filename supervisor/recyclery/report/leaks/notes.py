"""What to make of a task's growth, in a sentence that needs no manual."""

from __future__ import annotations

from recyclery.report.leaks.growth import JUDGED_STEPS, PLATEAU_BYTES, TaskGrowth
from recyclery.report.leaks.lives import JUDGED_LIFE

# Once in so many runs is a habit.
HABIT = 50
PLACE_NAMES = {
    "python": "Python",
    "browser": "the browser",
    "shared": "shared memory",
    "other": "other programs",
    "files": "files in /dev/shm",
}


def write_note(growth: TaskGrowth, browsers_left: int) -> str:
    """Say what the figures mean, and what they cannot tell yet."""
    said = [shape_note(growth)]
    if forgets_browsers(growth.runs, browsers_left):
        said.append(
            f"it left a browser running {browsers_left} times, which was killed: quit it in a `finally`"
        )
    return "; ".join(said)


def forgets_browsers(runs: int, browsers_left: int) -> bool:
    """Tell whether browsers left running are a habit; one may be left by a kill, or as a worker stops."""
    return browsers_left > 1 and browsers_left * HABIT > runs


def shape_note(growth: TaskGrowth) -> str:
    """Say what its shape means."""
    place = PLACE_NAMES[growth.place]
    match growth.shape:
        case "leak" if growth.place == "files":
            return "every run leaves files in /dev/shm, and no recycle removes them"
        case "leak":
            return f"every run leaves about as much in {place}, for as long as a child lives"
        case "step":
            return f"few runs leave most of it in {place}, and at once: look for what they have in common"
        case "plateau":
            return "grows while a child is young, and then no more: a cache, no leak"
        case "none":
            return "leaves nothing"
        case _:
            return doubt_note(growth)


def doubt_note(growth: TaskGrowth) -> str:
    """Say why it is not decided."""
    if growth.runs < JUDGED_STEPS:
        return f"{growth.runs} runs are too few to tell: wait for {JUDGED_STEPS}"
    if growth.life < JUDGED_LIFE:
        return (
            f"children run it {growth.life} times in their life, too few to tell a leak from a warm-up: "
            f"raise max_tasks_per_child until it is {JUDGED_LIFE}"
        )
    if growth.mean_bytes - growth.away_bytes > PLATEAU_BYTES:
        return (
            "grows, but less and less: a cache that fills slowly, or a leak behind one; longer lives would tell"
        )
    return "readings vary more than it grows: more runs will tell"
