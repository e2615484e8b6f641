"""The matrix: the ways a task's process may die, and what is promised of its task then."""

import random
from enum import StrEnum

from delivery.apps.table import EARLY


class Way(StrEnum):
    """What happens while the task runs, in the words of the docs."""

    CHILD = "`kill -9` of the task's process"
    MEMORY = "out of memory: preempted (Celery: killed)"
    MEMORY_ERROR = "the task raises `MemoryError`"
    BESIDE = "another task beside that one"
    SYS_EXIT = "the task calls `sys.exit`, every time"
    OS_EXIT = "the task calls `os._exit`, every time"
    TIME_LIMIT = "its hard time limit"
    MAIN = "`kill -9` of the worker's main process"
    CONTAINER = "`kill -9` of all of its container"
    TERM_WITHIN = "TERM, and it ends within the grace"
    TERM_BEYOND = "TERM, and it does not"


class Outcome(StrEnum):
    """What became of a task whose work nobody refused."""

    ONCE = "runs once"
    AGAIN = "runs again"
    FAILS = "fails"
    FAILS_AGAIN = "runs again and fails"
    PARKED = "is parked"
    ENDLESS = "runs again and again"
    ENDS_WORKER = "ends its worker"
    HELD = "waits an hour"
    """Unacknowledged by a worker that is dead, until Celery's visibility timeout has passed."""
    LOST = "is lost"
    """It did not end, lies nowhere, and nothing says so."""


LATE = {
    Way.CHILD: Outcome.AGAIN,
    Way.MEMORY: Outcome.AGAIN,
    Way.MEMORY_ERROR: Outcome.FAILS,
    Way.BESIDE: Outcome.ONCE,
    Way.SYS_EXIT: Outcome.PARKED,
    Way.OS_EXIT: Outcome.PARKED,
    Way.TIME_LIMIT: Outcome.FAILS,
    Way.MAIN: Outcome.AGAIN,
    Way.CONTAINER: Outcome.AGAIN,
    Way.TERM_WITHIN: Outcome.ONCE,
    Way.TERM_BEYOND: Outcome.AGAIN,
}
"""What is promised of a task of any app."""
SAID_EARLY = {
    **LATE,
    Way.CHILD: Outcome.FAILS,
    Way.MEMORY: Outcome.FAILS,
    Way.SYS_EXIT: Outcome.FAILS,
    Way.OS_EXIT: Outcome.FAILS,
    Way.MAIN: Outcome.LOST,
    Way.CONTAINER: Outcome.LOST,
    Way.TERM_BEYOND: Outcome.LOST,
}
"""The same of one whose app says that it must not run twice (`acks_late=False`)."""


def is_late(shape: str) -> bool:
    """Tell whether the shape's task `work` is acknowledged when it is done."""
    return "work" not in EARLY[shape]


def promised(shape: str, way: Way) -> Outcome:
    """Return what docs/guarantees.md promises of a task of this app."""
    return (LATE if is_late(shape) else SAID_EARLY)[way]


def draw_ways(seed: int) -> dict[str, tuple[Way, ...]]:
    """Return for each shape one way, the ways in turn from a start that depends on the seed."""
    ways = [way for way in Way if way is not Way.BESIDE]
    dice = random.Random(seed)
    dice.shuffle(ways)
    shapes = [*EARLY]
    dice.shuffle(shapes)
    drawn = {shape: ways[number % len(ways)] for number, shape in enumerate(shapes)}
    # That one comes with its neighbour.
    return {
        shape: (way, Way.BESIDE) if way is Way.MEMORY_ERROR else (way,) for shape, way in sorted(drawn.items())
    }


def judge(*, begun: int, ended: int, is_parked: bool, is_held: bool, is_told: bool) -> Outcome | str:
    """Name what became of a task, or say what was seen where that has no name."""
    found = (begun, ended, is_parked, is_held)
    if begun > 3 and not is_parked:
        return Outcome.ENDLESS
    if found == (1, 1, False, False):
        return Outcome.ONCE
    if found == (2, 1, False, False):
        return Outcome.AGAIN
    if begun > 1 and found[1:] == (0, False, False) and is_told:
        return Outcome.FAILS_AGAIN
    if found == (3, 0, True, False):
        return Outcome.PARKED
    if found == (1, 0, False, True):
        return Outcome.HELD
    if found == (1, 0, False, False):
        return Outcome.FAILS if is_told else Outcome.LOST
    return f"began {begun} and ended {ended} times; parked: {is_parked}, held: {is_held}, told: {is_told}"
