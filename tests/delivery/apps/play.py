"""Plays the matrix's cells of one app in one kind of container, and tells what became of each task."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import redis

from delivery.apps.containers import Container
from delivery.apps.table import name_of_app, name_of_work
from delivery.apps.ways import Outcome, Way, judge
from recyclery_worker.parking.records import DeadLetterStore
from support.redis_server import count_held, redis_server
from support.sending import sending_to
from support.waiting import is_alive, wait_for

Start = Callable[[str, str], AbstractContextManager[Container]]
"""Starts a container for a Redis and an app."""
ACTS = {
    Way.MEMORY: "grow",
    Way.MEMORY_ERROR: "raise MemoryError",
    Way.SYS_EXIT: "sys.exit",
    Way.OS_EXIT: "os._exit",
}
SIDE_BY_SIDE = (Way.CHILD, Way.MEMORY, Way.SYS_EXIT, Way.OS_EXIT, Way.TIME_LIMIT)
"""These end no more than a process of the task's own, so one worker has all of them at once."""
TO_ITS_END = (Way.BESIDE, Way.TERM_WITHIN)
PROCESS_ENDS = (Way.CHILD, Way.MEMORY, Way.SYS_EXIT, Way.OS_EXIT)
EVERY_RUN = (Way.SYS_EXIT, Way.OS_EXIT)
TOLD = ("raised", "Hard time limit")
CLEAR = (Outcome.ONCE, Outcome.AGAIN, Outcome.FAILS, Outcome.PARKED, Outcome.ENDLESS)
"""A task that became one of these becomes nothing else."""
SHORT_SECONDS, LONG_SECONDS = 10.0, 60.0
"""How long is waited for it to be clear what becomes of a task; long where it is expected to."""


LEASE_SECONDS = 12.0
"""And its watcher's next look."""


class Cell:
    """One task, its folder, and what is seen of it."""

    def __init__(self, way: Way, folder: Path) -> None:
        self.way = way
        self.folder = folder / way.name
        self.folder.mkdir()
        (self.folder / "act").write_text(ACTS.get(way, ""))
        self.task_id = ""

    def read_pids(self, name: str) -> list[int]:
        """Return the pids in a file of it."""
        with suppress(FileNotFoundError):
            return [int(pid) for pid in (self.folder / name).read_text().split()]
        return []

    def is_begun(self, times: int = 1) -> bool:
        """Tell whether the task has begun that many times."""
        return len(self.read_pids("begun")) >= times

    def open_gate(self) -> None:
        """Let its task come to its end."""
        (self.folder / "gate").touch()


class Player:
    """The cells of one app; those of the ways `clear` are expected to become one of `CLEAR`."""

    def __init__(self, shape: str, start: Start, ways: Collection[Way], clear: Collection[Way]) -> None:
        self.start = start
        self.app = name_of_app(shape)
        self.work = name_of_work(shape)
        self.ways = ways
        self.clear = clear
        self.containers: list[Container] = []
        self.ended_worker = False

    def play(self) -> dict[Way, Outcome | str]:
        """Return what became of the task in each of the ways."""
        with ExitStack() as stack:
            self.url = stack.enter_context(redis_server())
            self.client = stack.enter_context(redis.Redis.from_url(self.url))
            self.store = DeadLetterStore(self.client)
            self.sender = stack.enter_context(sending_to(self.url))
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cells-"))
            self.cells = {way: Cell(way, Path(folder)) for way in self.ways}
            with self.container() as container:
                self.play_children(container)
                if Way.MAIN in self.cells:
                    self.play_main(container)
                is_stopped = self.play_stop(container)
                if not is_stopped and Way.CONTAINER not in self.cells:
                    self.settle()
            if is_stopped or Way.CONTAINER in self.cells:
                with self.container() as container:
                    if Way.TERM_BEYOND in self.cells:
                        self.await_outcomes([self.cells[Way.TERM_BEYOND]])
                    if Way.CONTAINER in self.cells:
                        self.play_container(container)
                    else:
                        self.settle()
            found = {way: self.judge(cell) for way, cell in self.cells.items()}
            return found | ({Way.MEMORY_ERROR: Outcome.ENDS_WORKER} if self.ended_worker else {})

    @contextmanager
    def container(self) -> Iterator[Container]:
        """Run a further container until the block ends."""
        with self.start(self.url, self.app) as container:
            self.containers.append(container)
            yield container

    def play_children(self, container: Container) -> None:
        """Play what happens inside one worker, all at once but what ends a worker of stock Celery."""
        cells = [self.cells[way] for way in SIDE_BY_SIDE if way in self.cells]
        for cell in cells:
            self.send(cell, **({"time_limit": 1} if cell.way is Way.TIME_LIMIT else {}))
        for cell in cells:
            self.await_begun(cell)
            if cell.way is Way.CHILD:
                self.await_early_acknowledgement(cell)
                os.kill(cell.read_pids("begun")[0], signal.SIGKILL)
            if cell.way is Way.MEMORY:
                container.out_of_memory(partial(cell.read_pids, "grown"))
        self.await_outcomes(cells)
        if Way.MEMORY_ERROR in self.cells:
            beside = self.begin(Way.BESIDE)
            main = psutil.Process(beside.read_pids("begun")[0]).ppid()
            cell = self.begin(Way.MEMORY_ERROR)
            self.await_outcomes([cell])
            self.await_outcomes([beside])
            container.restart_main()
            if not is_alive(main):
                self.ended_worker = True
                self.await_outcomes([cell])

    def play_main(self, container: Container) -> None:
        """Kill a worker's main process."""
        cell = self.begin(Way.MAIN)
        os.kill(psutil.Process(cell.read_pids("begun")[0]).ppid(), signal.SIGKILL)
        container.restart_main()
        self.await_outcomes([cell])

    def play_stop(self, container: Container) -> bool:
        """Stop a container while its tasks run, one that ends then and one that does not."""
        cells = [self.begin(way) for way in (Way.TERM_WITHIN, Way.TERM_BEYOND) if way in self.cells]
        if not cells:
            return False
        container.stop()
        wait_for(lambda: "arm shutdown" in container.output(), "the worker knows of it")
        if Way.TERM_WITHIN in self.cells:
            self.await_outcomes([self.cells[Way.TERM_WITHIN]])
        container.wait()
        return True

    def play_container(self, container: Container) -> None:
        """Kill a container while another one is up."""
        cell = self.begin(Way.CONTAINER)
        with self.container():
            container.kill()
            self.await_outcomes([cell], more_seconds=LEASE_SECONDS)
            self.settle()

    def send(self, cell: Cell, **options: Any) -> None:
        """Send the cell's task."""
        cell.task_id = self.sender.send_task(self.work, (str(cell.folder), 600), queue="low", **options).id

    def begin(self, way: Way) -> Cell:
        """Send a task and wait until it runs."""
        cell = self.cells[way]
        self.send(cell)
        self.await_begun(cell)
        self.await_early_acknowledgement(cell)
        return cell

    def await_begun(self, cell: Cell) -> None:
        """Wait until the cell's task runs."""
        wait_for(cell.is_begun, f"{self.work} begins, {cell.way}")

    def await_early_acknowledgement(self, cell: Cell) -> None:
        """Wait until a task that runs is acknowledged, as long as that takes at most where it is early."""
        with suppress(AssertionError):
            wait_for(lambda: not self.is_held(cell), "it is acknowledged", 0.5)

    def await_outcomes(self, cells: Collection[Cell], more_seconds: float = 0) -> None:
        """Wait until it is clear what becomes of the tasks, or patience ends; then they may end."""
        becomes_clear = all(cell.way in self.clear for cell in cells)
        until = time.monotonic() + (LONG_SECONDS if becomes_clear else SHORT_SECONDS) + more_seconds
        while time.monotonic() < until:
            for cell in cells:
                if cell.way in TO_ITS_END or (cell.is_begun(2) and cell.way not in EVERY_RUN):
                    cell.open_gate()
            if all(self.judge(cell) in CLEAR for cell in cells):
                break
            time.sleep(0.1)
        for cell in cells:
            cell.open_gate()

    def settle(self) -> None:
        """Let the workers that are up finish whatever there still is, so that no run comes unseen."""
        with suppress(AssertionError):
            wait_for(lambda: not self.client.keys("low*") and not count_held(self.client), "all done", 15)

    def judge(self, cell: Cell) -> Outcome | str:
        """Name what has become of the cell's task so far."""
        return judge(
            begun=len(cell.read_pids("begun")),
            ended=len(cell.read_pids("ended")),
            is_parked=cell.task_id in {task.task_id for task in self.store.list_parked()},
            is_held=self.is_held(cell),
            is_told=self.is_told(cell),
        )

    def is_held(self, cell: Cell) -> bool:
        """Tell whether the task's message is in its queue, or unacknowledged."""
        # It may move from one to the other between two looks, in either direction.
        found = [*self.list_waiting(), *self.list_unacked(), *self.list_waiting()]
        return any(cell.task_id.encode() in message for message in found)

    def list_waiting(self) -> list[bytes]:
        """Return the messages in the queue, which has a key for each priority."""
        client: Any = self.client
        return [message for key in client.keys("low*") for message in client.lrange(key, 0, -1)]

    def list_unacked(self) -> list[bytes]:
        """Return the messages that workers hold, Celery's and ours."""
        client: Any = self.client
        keys = [b"unacked", *client.keys("recyclery:*:unacked")]
        return [message for key in keys for message in client.hvals(key)]

    def is_told(self, cell: Cell) -> bool:
        """Tell whether the log says that the task failed."""
        output = self.output()
        if cell.way in PROCESS_ENDS:
            # These lines do not name their tasks.
            ends = sum(way in PROCESS_ENDS for way in self.cells)
            return output.count("raised error: WorkerLostError") >= ends
        return any(cell.task_id in line and any(word in line for word in TOLD) for line in output.splitlines())

    def output(self) -> str:
        """What all containers have printed."""
        return "\n".join(container.output() for container in self.containers)
