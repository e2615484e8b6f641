"""What came of a storm: the figures and the verdict."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Summary:
    """The figures of one storm; tasks are the scraping tasks.

    mix               the name of what the tasks do beside scraping
    succeeded         done at least once
    failed            the result is FAILURE and the task was never done
    lost              neither done, nor failed, nor waiting in the queue after the workers stopped
    queued            still waiting in the queue then: given up or interrupted, but not lost
    duplicates        completions beyond the first
    fast_succeeded    light tasks done at least once, of fast_tasks
    oom_kills         processes the kernel killed in the cage
    recycles          children and workers replaced, by reason, as the supervisor counts them
    orphans_reaped    browsers the supervisor killed because no live task owned them
    leaked_browsers   browsers still running when all was done, after up to 3 s to settle
    defunct_left      processes ended but not reaped at that moment
    processes_left    processes in the cage after its PID 1 has ended
    peak_bytes        highest charge, page cache included; with a budget the highest sum of private memory
    peak_floor_bytes  highest part of it seen that cannot be reclaimed
    seconds           from the first task sent to the last one done, or to giving up
    scraped_seconds   from the first task sent to the last scraping task done, or to giving up
    fast_p95_seconds  from when a light task was due until it was done, 95th percentile
    exit              exit status of the cage's PID 1; 128 + n for a signal
    ending            finished, deadline, interrupted, or ended where PID 1 ended on its own
    """

    manager: str
    mix: str
    memory: str
    tasks: int
    succeeded: int
    failed: int
    lost: int
    queued: int
    duplicates: int
    fast_tasks: int
    fast_succeeded: int
    oom_kills: int
    recycles: Mapping[str, int]
    orphans_reaped: int
    leaked_browsers: int
    defunct_left: int
    processes_left: int
    peak_bytes: int
    peak_floor_bytes: int
    limit_bytes: int
    seconds: float
    scraped_seconds: float
    fast_p95_seconds: float | None
    exit: int
    ending: str

    def problems(self) -> list[str]:
        """Return everything that keeps this storm from being a success, in words."""
        undone, light_undone = self.tasks - self.succeeded, self.fast_tasks - self.fast_succeeded
        found = {
            f"{undone} of {self.tasks} tasks not done": undone,
            f"{light_undone} of {self.fast_tasks} light tasks not done": light_undone,
            f"{self.failed} failed": self.failed,
            f"{self.lost} lost": self.lost,
            f"{self.oom_kills} OOM kills": self.oom_kills,
            f"{self.defunct_left} defunct left": self.defunct_left,
            f"{self.processes_left} processes left": self.processes_left,
        }
        return [text for text, count in found.items() if count]

    def exit_status(self) -> int:
        """Return the demo's exit status: 0 only without any problem."""
        return 1 if self.problems() else 0

    def to_json(self) -> str:
        """Return the figures as one JSON object."""
        return json.dumps(asdict(self))


def verdict(summary: Summary) -> str:
    """Say in one sentence how it went."""
    problems = summary.problems()
    if not problems and summary.leaked_browsers:
        return f"All {summary.tasks} tasks done, but {summary.leaked_browsers} browsers were left running."
    if not problems:
        return f"All {summary.tasks} tasks done, nothing killed, nothing left."
    return f"Not good ({summary.ending}): {', '.join(problems)}."
