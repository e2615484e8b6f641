"""Containers of which it is known what their tasks wait for: simulated task by task, measured as windows."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass

from recyclery.tune.spec import Level
from recyclery.tune.window import Window

MIB = 1 << 20


@dataclass(frozen=True)
class World:
    """What a task does: sleeps, then uses a CPU, then holds the only lock; and what a child holds."""

    sleep_seconds: float = 0.0
    cpu_seconds: float = 0.0
    lock_seconds: float = 0.0
    variation: float = 0.3
    """Of each of these."""
    noise: float = 0.06
    """Of a window as a whole: neighbours on the machine."""
    drift: float = 0.0
    """Likewise, of all windows of a round."""
    cores: float = 2.0
    start_seconds: float = 0.0
    """A new child's."""
    main_mib: float = 120.0
    fresh_mib: float = 40.0
    growth_mib: float = 0.0
    peak_mib: float = 60.0
    limit_mib: float = 4096.0

    def best(self, concurrencies: tuple[int, ...]) -> int:
        """Return the smallest concurrency of these that does within 5 % of what the best one does."""
        fitting = [places for places in concurrencies if self.height_mib(places, 1) < 0.9 * self.limit_mib]
        most = max(map(self.per_second, fitting))
        return next(places for places in fitting if self.per_second(places) >= 0.95 * most)

    def per_second(self, places: int) -> float:
        """Return the throughput by the bounds that hold without any variation."""
        alone = self.sleep_seconds + self.cpu_seconds + self.lock_seconds
        bounds = [places / alone]
        if self.cpu_seconds:
            bounds.append(self.cores / self.cpu_seconds)
        if self.lock_seconds:
            bounds.append(1 / self.lock_seconds)
        return min(bounds)

    def height_mib(self, places: int, max_tasks: int) -> float:
        """Return what all children hold together with their tasks at their peak."""
        return self.main_mib + places * (self.fresh_mib + self.growth_mib * (max_tasks - 1) + self.peak_mib)


def measure(world: World, level: Level, repeat: int, tasks: int, seed: object) -> Window:
    """Return the window in which so many tasks ended; one given up at once where memory cannot do."""
    chance = random.Random(f"{level!r} {repeat} {seed}")
    height = world.height_mib(level.concurrency, level.max_tasks_per_child)
    if height > world.limit_mib:
        return window(world, level, repeat, stopped="the floor passed the hard level of the memory")
    ended, begun = run_tasks(world, level, tasks + level.concurrency, chance)
    # Warm-up: each place's first task.
    warm = level.concurrency
    of_round = random.Random(f"{repeat} {seed}").gauss(0, world.drift)
    slower = math.exp(chance.gauss(0, world.noise) + of_round)
    seconds = (ended[-1] - ended[warm - 1]) * slower
    ran = tuple((end - start) * slower for end, start in zip(ended[warm:], begun[warm:], strict=True))
    peak = height * math.exp(chance.gauss(0, world.noise / 2))
    return window(
        world,
        level,
        repeat,
        seconds=seconds,
        ran=ran,
        peak_mib=peak,
        cpu_seconds=len(ran) * world.cpu_seconds,
    )


def window(
    world: World,
    level: Level,
    repeat: int,
    *,
    seconds: float = 0.0,
    ran: tuple[float, ...] = (),
    peak_mib: float = 0.0,
    cpu_seconds: float = 0.0,
    stopped: str = "",
) -> Window:
    """Return a window of the world."""
    child = world.fresh_mib + world.growth_mib * (level.max_tasks_per_child - 1) + world.peak_mib
    peak = peak_mib or world.limit_mib
    return Window(
        level=level,
        repeat=repeat,
        seconds=seconds,
        waited_seconds=tuple(0.01 for _ in ran),
        ran_seconds=ran,
        errors=0,
        base_floor_bytes=int((world.main_mib + level.concurrency * world.fresh_mib) * MIB),
        peak_floor_bytes=int(peak * MIB),
        limit_bytes=int(world.limit_mib * MIB),
        child_peak_bytes=(int(child * MIB),) * level.concurrency,
        recycles=(("max_tasks", max(1, len(ran) // level.max_tasks_per_child)),),
        oom_kills=0,
        cpu_seconds=cpu_seconds,
        cores=world.cores,
        stopped=stopped,
    )


def run_tasks(world: World, level: Level, tasks: int, chance: random.Random) -> tuple[list[float], list[float]]:
    """Return when the first so many tasks ended, and when each of them had begun.

    The CPUs are shared: time on them is counted in what one task on them gets (`virtual`), so that who is next
    done with his share is known without looking at all the others.
    """
    now, virtual = 0.0, 0.0
    sleeping: list[tuple[float, int]] = []
    computing: list[tuple[float, int]] = []
    waiting: deque[int] = deque()
    locked_until, holder = math.inf, -1
    begun: dict[int, float] = {}
    ended: list[float] = []
    starts: list[float] = []

    def draw(mean: float) -> float:
        return chance.gammavariate(1 / world.variation**2, mean * world.variation**2) if mean else 0.0

    for place in range(level.concurrency):
        begun[place] = 0.0
        heapq.heappush(sleeping, (draw(world.sleep_seconds) + place * 1e-6, place))
    ran = dict.fromkeys(range(level.concurrency), 0)
    while len(ended) < tasks:
        rate = min(1.0, world.cores / len(computing)) if computing else 0.0
        wakes = sleeping[0][0] if sleeping else math.inf
        computed = now + (computing[0][0] - virtual) / rate if computing else math.inf
        at = min(wakes, computed, locked_until)
        virtual, now = virtual + (at - now) * rate, at
        if at == wakes:
            _, place = heapq.heappop(sleeping)
            heapq.heappush(computing, (virtual + draw(world.cpu_seconds), place))
            continue
        if at == computed:
            _, place = heapq.heappop(computing)
            if world.lock_seconds:
                waiting.append(place)
                if holder < 0:
                    holder = waiting.popleft()
                    locked_until = now + draw(world.lock_seconds)
                continue
        else:
            place, holder, locked_until = holder, -1, math.inf
            if waiting:
                holder = waiting.popleft()
                locked_until = now + draw(world.lock_seconds)
        ended.append(now)
        starts.append(begun[place])
        ran[place] += 1
        start = world.start_seconds if ran[place] % level.max_tasks_per_child == 0 else 0.0
        begun[place] = now + start
        heapq.heappush(sleeping, (now + start + draw(world.sleep_seconds), place))
    return ended, starts
