"""How long tasks wait for a CPU when several run, from what one of them uses.

Tasks that compute and wait in turns, on CPUs shared evenly, are a closed network of the kind whose throughput
depends on the means alone (Baskett, Chandy, Muntz, Palacios): how the times vary, and in how many pieces they
come, does not matter. So nothing is fitted here but the time away from the CPUs, to one level's figure.
"""

from __future__ import annotations

from dataclasses import dataclass

# Of the time on a CPU; a task that never waits elsewhere would have no states to reckon with.
LEAST_AWAY = 1e-6
HALVINGS = 40


@dataclass(frozen=True, slots=True)
class CpuShare:
    """A task's seconds on a CPU and away from it, and the CPUs there are."""

    cpu_seconds: float
    away_seconds: float
    cores: float

    @property
    def ceiling_per_second(self) -> float:
        """The tasks per second that use up the CPUs."""
        return self.cores / self.cpu_seconds

    def waited_seconds(self, concurrency: int) -> float:
        """Return how much longer a task takes than alone, for want of a CPU, when so many run."""
        alone = self.cpu_seconds + self.away_seconds
        return max(0.0, concurrency / self.per_second(concurrency) - alone)

    def per_second(self, concurrency: int) -> float:
        """Return the throughput: that of each number of tasks on the CPUs, by how often there are so many."""
        away = max(self.away_seconds, LEAST_AWAY * self.cpu_seconds)
        weight = total = 1.0
        busy = 0.0
        for computing in range(1, concurrency + 1):
            served = min(float(computing), self.cores)
            weight *= (concurrency - computing + 1) * self.cpu_seconds / (away * served)
            total += weight
            busy += weight * served
            if total > 1e100:
                weight, total, busy = weight / total, 1.0, busy / total
        return busy / total / self.cpu_seconds


def fit_away(cpu_seconds: float, cores: float, concurrency: int, seconds_per_task: float) -> CpuShare:
    """Return the share with which a task takes so long when so many run."""
    low, high = 0.0, seconds_per_task
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if concurrency / CpuShare(cpu_seconds, middle, cores).per_second(concurrency) < seconds_per_task:
            low = middle
        else:
            high = middle
    return CpuShare(cpu_seconds, low, cores)
