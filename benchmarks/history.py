"""history: what keeping the history costs: writing, size, the tick beside it, and questions asked of it.

Seven days of a container with two pools and four children are simulated, every child changing every second and
ending a task every six, which is more than most do; once a simulated minute the file is tidied as the writer
does. Of the older days every tenth second is written only: seconds are kept for one day. --quick simulates the
last day alone at 1 Hz, the six before it at one reading a minute.

The tick's share is that of `Recorder.look`, on snapshots of 48 processes: alone, and while another process
holds the file's lock, as a slow disk would.
"""

from __future__ import annotations

import argparse
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contract import Bound, close
from recyclery.common.pool_state import PoolState
from recyclery.config.paths import history_file
from recyclery.config.settings import BUILT_IN, HistorySettings, Settings
from recyclery.decide.memory_model import RISK
from recyclery.decide.policy_state import PolicyState
from recyclery.history.reader import read_stretch
from recyclery.history.recorder import Recorder
from recyclery.history.records import ChildSample, ContainerSample, Parts, PoolSample, Record, RunRecord
from recyclery.history.retention import tidy
from recyclery.history.store import Store, stamp
from recyclery.leaks.page import MOST_ACTIONS, MOST_STEPS
from recyclery.observe.snapshot import Child, ContainerMemory, Owner, PoolView, Process, Snapshot

MIB = 1 << 20
DAY = 86_400
CAP_BYTES = 100 * MIB
TASKS = ("app.tasks.scrape", "app.tasks.export", "app.tasks.mail", "app.tasks.index", "app.tasks.report")
RUN_SECONDS = 6
RUNS_PER_CHILD = 50
LOOKS = 2000
# The best of so many answers counts: the others tell of what else the machine does.
ASKED = 3


def simulate(begin: int, end: int, every: int) -> Iterator[list[Record]]:
    """Yield what each minute brings, with readings every so many seconds."""
    chance = random.Random(begin)  # noqa: S311 - repeatable on purpose
    owners = [Owner("slow" if child == 0 else "fast", 100 + child, begin) for child in range(4)]
    held = [60 * MIB] * 4
    places = [0] * 4
    for minute in range(begin, end, 60):
        records: list[Record] = []
        for second in range(minute, minute + 60, every):
            records.append(ContainerSample(second, 2 << 30, 1 << 30, sum(held) + second % 997, 0, 0))
            records += [
                PoolSample(second, pool, sum(held) // 2 + second % 97, 70 * MIB, 2, 600 * MIB, 50)
                for pool in ("slow", "fast")
            ]
            records += [
                ChildSample(second, owner, Parts(held[number] + second % 1013, 200 * MIB), TASKS[0])
                for number, owner in enumerate(owners)
            ]
        for second in range(minute, minute + 60, RUN_SECONDS):
            for number, owner in enumerate(owners):
                task = chance.randrange(len(TASKS))
                before, held[number] = held[number], held[number] + (0, 0, 1, 4, 0)[task] * MIB
                records.append(
                    RunRecord(
                        owner,
                        {TASKS[task]: 1},
                        places[number],
                        second,
                        2.0,
                        Parts(before),
                        Parts(held[number] + 20 * MIB, 250 * MIB),
                        Parts(held[number]),
                        True,
                        "done",
                    )
                )
                places[number] += 1
                if places[number] == RUNS_PER_CHILD:
                    owners[number] = Owner(owner.pool, owner.pid + 10, owner.start_ticks)
                    held[number], places[number] = 60 * MIB, 0
        yield records


def write_days(path: Path, days: int, coarse: int) -> dict[str, float]:
    """Write so many days up to now; return rows per second, and the file's size as it was after each day."""
    store = Store(path)
    now = int(time.time()) // 60 * 60
    rows, spent, largest = 0, 0.0, 0
    sizes = []
    try:
        for day in range(days, 0, -1):
            begin = now - day * DAY
            for number, records in enumerate(simulate(begin, begin + DAY, 1 if day == 1 else coarse)):
                started = time.perf_counter()
                store.write(records)
                spent += time.perf_counter() - started
                rows += len(records)
                if number % 10 == 0:
                    tidy(store.connection, HistorySettings(max_bytes=CAP_BYTES), stamp(begin + number * 60))
                    largest = max(largest, size_of(path))
            sizes.append(size_of(path))
            print(f"day {days - day + 1}: {sizes[-1] / MIB:.1f} MiB", flush=True)
    finally:
        store.close()
    return {
        "rows written per second": round(rows / spent),
        "largest MiB": round(largest / MIB, 1),
        "MiB of the last day": round((sizes[-1] - sizes[-2]) / MIB, 1) if len(sizes) > 1 else 0.0,
    }


def size_of(path: Path) -> int:
    """Return the size of the file with its journal."""
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))


def time_queries(path: Path) -> dict[str, float]:
    """Return the seconds that a question over 24 h and the whole report take."""
    now = time.time()
    started = time.perf_counter()
    read_stretch(path, now - DAY, now, MOST_STEPS, MOST_ACTIONS)
    asked = time.perf_counter() - started
    answered = []
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(ASKED):
        started = time.perf_counter()
        command = [sys.executable, "-m", "recyclery", "leaks", "--history", str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        answered.append(time.perf_counter() - started)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return {
        "24 h read, s": round(asked, 3),
        "leaks, best s": round(min(answered), 3),
        # The largest of what this process has started, in KiB on Linux (getrusage(2)).
        "leaks, largest MiB": round(after.ru_maxrss / 1024, 1),
        "leaks, CPU s": round(cpu / ASKED, 3),
    }


def time_looks(folder: Path, *, locked: bool) -> tuple[float, float]:
    """Return the middle and the largest milliseconds of a look; `locked` while the file cannot be written."""
    settings = Settings(app="app", pools=BUILT_IN, runtime_dir=folder, state_dir=folder)
    recorder = Recorder(settings)
    recorder.record_snapshot(snapshot(0), PolicyState(RISK), settings)
    while not history_file(folder).exists():
        time.sleep(0.05)
    holder = sqlite3.connect(history_file(folder), isolation_level=None)
    if locked:
        # The tables may just be made.
        holder.execute("PRAGMA busy_timeout = 5000")
        holder.execute("BEGIN EXCLUSIVE")
    spent = []
    for number in range(1, LOOKS):
        seen = snapshot(number)
        started = time.perf_counter()
        recorder.record_snapshot(seen, PolicyState(RISK), settings)
        spent.append((time.perf_counter() - started) * 1000)
        time.sleep(0.001)
    holder.close()
    recorder.close()
    return sorted(spent)[len(spent) // 2], sorted(spent)[len(spent) * 99 // 100]


def snapshot(number: int) -> Snapshot:
    """Return a look at four children with eleven browser processes each, all of which have changed."""
    children = tuple(
        Child(
            owner=Owner("fast", 100 + child, 1),
            processes=(
                Process(100 + child, 1, 1, 100, "S", "python", (60 + number % 50 * 2) * MIB),
                *(Process(1000 + child * 20 + n, 1, 1, 100, "S", "chromium", 20 * MIB) for n in range(11)),
            ),
            task_id="id",
            task_name=TASKS[number % 5],
        )
        for child in range(4)
    )
    container = ContainerMemory(2 << 30, 1 << 30, 1 << 30, 1 << 30, 0, "simulated")
    views = tuple(PoolView(name=pool.name, state=PoolState.RUNNING, pid=1) for pool in BUILT_IN)
    return Snapshot(
        at=1000.0 + number, container=container, pools=views, children=children, orphans=(), defunct=0
    )


def main() -> int:
    """Measure, and hold the figures to the bounds."""
    parser = argparse.ArgumentParser(prog="scripts/bench history", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the six older days at one reading a minute")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rcy-history-") as folder:
        path = Path(folder) / "history.db"
        figures = write_days(path, 7, 60 if args.quick else 10)
        figures |= time_queries(path)
        (Path(folder) / "alone").mkdir()
        (Path(folder) / "locked").mkdir()
        middle, most = time_looks(Path(folder) / "alone", locked=False)
        blocked, blocked_most = time_looks(Path(folder) / "locked", locked=True)
    figures |= {
        "look, median ms": round(middle, 3),
        "look, p99 ms": round(most, 3),
        "look beside a locked file, median ms": round(blocked, 3),
        "look beside a locked file, p99 ms": round(blocked_most, 3),
    }
    for name, value in figures.items():
        print(f"{name:40} {value:>12g}")
    return close(
        "history",
        figures,
        {
            "seven days, largest MiB": Bound(figures["largest MiB"], "<=", CAP_BYTES / MIB),
            "leaks answers, s": Bound(figures["leaks, best s"], "<=", 2.0),
            "look beside a locked file, p99 ms": Bound(
                figures["look beside a locked file, p99 ms"], "<=", 10.0
            ),
        },
        {
            "leaks answers, s": Bound(figures["leaks, best s"], "<=", 1.0),
            "look, median ms": Bound(figures["look, median ms"], "<=", 1.0),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
