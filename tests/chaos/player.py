"""Plays a plan of faults against two containers and one Redis while tasks go through, and writes down all."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from redis.exceptions import RedisError

from chaos.boxes import Box, Process
from chaos.faults import Fault, pick
from chaos.record import Blow, Ending, Event, Kept, Look, Record, Run, name_victims, read_runs
from chaos.sender import Sender
from chaos.store import Store
from recyclery.control.client import Declined, NoSupervisor, ask_governor
from recyclery_worker.delivery.registry import Generation
from recyclery_worker.link import now
from support.stepped_clock import HAS_COMPILER
from support.waiting import wait_for

TICK_SECONDS = 0.05
LOOK_EVERY_SECONDS = 1.0
READY_SECONDS = 120.0
POSTPONED_SECONDS = 60.0
SETTLE_SECONDS = 300.0
END_SECONDS = 90.0
# More than long enough for a lease: where it lasts so long it is told all the same.
KEPT_SECONDS = 30.0
PREEMPTED = re.compile(r"preempt (\w+)/(\d+): killed")
SPAWNED = re.compile(r"spawned: '((?:fast|slow)\S*)' with pid (\d+)")
DIED = re.compile(r"exited: ((?:fast|slow)\S*) \((.+); not expected\)")
TAKEN_FOR_DEAD = "this worker was taken for dead"


@dataclass
class Frozen:
    """Processes that stand still, and until when."""

    blow: Blow
    pids: list[int]
    until: float


@dataclass
class Quitting:
    """A worker that was told to stop at once; `ended` is when it had."""

    blow: Blow
    process: Process
    generation: Generation | None
    ended: float | None = None


class Player:
    """The two containers, whoever they are at the moment, and what has happened so far."""

    def __init__(self, folder: Path, logs: Path, *, with_browser: bool) -> None:
        self.folder = folder
        self.logs = logs
        self.runs_file = logs / "runs"
        self.runs_file.touch()
        self.store = Store(folder)
        self.sender = Sender(self.store, folder, with_browser=with_browser)
        self.boxes: list[Box] = []
        self.leaving: list[tuple[Box, float]] = []
        self.frozen: list[Frozen] = []
        self.quitting: list[Quitting] = []
        self.blows: list[Blow] = []
        self.taken_for_dead: list[Event] = []
        self.deaths: list[Event] = []
        self.kept: list[Kept] = []
        self.looks: list[Look] = []
        self.dealt: Counter[str] = Counter()
        self.postponed: list[Fault] = []
        """Faults that found nobody to hit yet."""
        self.kernels: list[Blow] = []
        """What the kernel killed for want of memory; whom is told by the runs, at the end."""
        self._started = 0
        self._read = 0
        self._done: set[int] = set()

    @property
    def impossible(self) -> set[str]:
        """The faults that cannot be dealt on this machine."""
        return set() if HAS_COMPILER else {"step redis"}

    def begin(self) -> None:
        """Start both containers, and wait until tasks run in each."""
        for _ in range(2):
            self._start_box()
        self.sender.start()
        wait_for(
            lambda: len({run.box for run in self.runs()}) == 2, "tasks run in both containers", READY_SECONDS
        )

    def play(self, plan: Iterable[Fault]) -> None:
        """Deal the faults when they are due, or as soon as there is somebody to hit."""
        began = now()
        for fault in plan:
            self._play_until(began + fault.at)
            say(f"{now() - began:6.1f} s  {fault.kind} {fault.seconds:.1f}")
            if not self._deal(fault):
                self.postponed.append(fault)
        deadline = now() + POSTPONED_SECONDS
        while self.postponed and now() < deadline:
            self._play_until(now() + TICK_SECONDS)

    def _play_until(self, at: float) -> None:
        while now() < at:
            self._tick()
            self.postponed = [fault for fault in self.postponed if not self._deal(fault)]
            time.sleep(TICK_SECONDS)

    def settle(self) -> None:
        """Let all go on, and wait until nothing waits and nothing is in hand."""
        self.sender.end()
        for one in self.frozen:
            one.until = 0.0
        self._set_clocks_right()
        wait_for(self._is_quiet, "all tasks to be done", SETTLE_SECONDS)
        wait_for(self._all_have_left, "the containers that stop", END_SECONDS)
        wait_for(self._only_the_living_hold_leases, "dead workers' leases to be over", END_SECONDS)

    def finish(self) -> Record:
        """Stop both containers and return what was seen."""
        with suppress(AssertionError):
            wait_for(lambda: not self._leftovers(), "nothing to be left", 30)
        defunct, browsers = self._leftovers() or ((), ())
        for box in self.boxes:
            box.terminate()
        codes = {box.name: box.wait(END_SECONDS) for box in self.boxes}
        self._tick()
        runs = self.runs()
        ending = Ending(
            keys=self.store.keys(),
            waiting=sum(map(self.store.waiting, ("high", "default", "low"))),
            held=len(self.store.there()),
            parked=self.store.parked(),
            exit_codes=codes,
            defunct=defunct,
            browsers=browsers,
        )
        return Record(
            sent=frozenset(self.sender.sent),
            doubtful=frozenset(self.sender.doubtful),
            runs=runs,
            blows=(*self.blows, *(name_victims(blow, runs) for blow in self.kernels)),
            looks=tuple(self.looks),
            ending=ending,
            failing=frozenset(self.sender.failing),
            due=dict(self.sender.due),
            garbage=dict(self.sender.garbage),
            taken_for_dead=tuple(self.taken_for_dead),
            deaths=tuple(self.deaths),
            kept=tuple(self.kept),
        )

    def close(self) -> None:
        """End everything, however it is."""
        self.sender.end()
        self._thaw(now() + 3600)
        for box in [*self.boxes, *(box for box, _ in self.leaving)]:
            box.close()
        self.store.end()

    def runs(self) -> tuple[Run, ...]:
        """Return the runs so far."""
        *lines, _ = self.runs_file.read_text().split("\n")
        return read_runs(lines)

    def look(self) -> None:
        """See which tasks are nowhere; those on their way from Redis to a worker are among them."""
        sent, begun = set(self.sender.sent), set(self.sender.begun)
        began = now()
        there = self.store.there()
        ended = now()
        # Last, for a task is done before it is acknowledged.
        self._read_done()
        missing = frozenset(sent - there - self._done)
        self.looks.append(Look(began, ended, missing, frozenset(begun - sent - self.sender.doubtful)))

    def _read_done(self) -> None:
        with self.runs_file.open() as file:
            file.seek(self._read)
            *lines, _ = file.read().split("\n")
        self._read += sum(len(line) + 1 for line in lines)
        words = map(json.loads, lines)
        self._done |= {word["task"] for word in words if word["what"] != "begin"}

    def _start_box(self) -> None:
        self._started += 1
        self.boxes.append(Box(f"box-{self._started}", self.folder, self.logs, self.store.url))

    def _tick(self) -> None:
        """Do what is due: let go on what stood still long enough, look, and read what containers say."""
        self._thaw(now())
        if not self.looks or now() - self.looks[-1].ended > LOOK_EVERY_SECONDS:
            self.look()
        for box in [*self.boxes, *(box for box, _ in self.leaving)]:
            for line in box.new_lines():
                self._read_line(box, line)
        self._look_for_kills()
        self._look_after_quitting()
        for box, since in list(self.leaving):
            code = box.wait(0)
            if code is not None:
                self.leaving.remove((box, since))
                # In order nothing is cut short.
                kind = "stop container" if code == 0 else "kill container"
                self.blows.append(Blow(kind, box.name, since, now()))

    def _read_line(self, box: Box, line: str) -> None:
        box.recent_lines.append(line)
        if found := PREEMPTED.search(line):
            child = frozenset({int(found[2])})
            self.blows.append(Blow("preempt", box.name, now() - 10, now(), children=child))
        elif found := SPAWNED.search(line):
            box.mains[found[1]] = int(found[2])
        elif found := DIED.search(line):
            self.deaths.append(
                Event(box.name, now(), found[2], box.mains.get(found[1]), tuple(box.recent_lines))
            )
        elif TAKEN_FOR_DEAD in line:
            self.taken_for_dead.append(Event(box.name, now(), line))

    def _look_after_quitting(self) -> None:
        """See when those that were told to stop at once have, and when what they held is somebody else's."""
        for one in list(self.quitting):
            if one.ended is None:
                if is_there(one.process):
                    continue
                one.ended = now()
                self.blows.append(replace(one.blow, ended=one.ended))
            if one.generation is not None and now() - one.ended < KEPT_SECONDS:
                try:
                    if self.store.holds(one.generation):
                        continue
                except RedisError:
                    continue
            self.quitting.remove(one)
            self.kept.append(Kept(one.blow.box, one.ended, now()))

    def _look_for_kills(self) -> None:
        """A task may take memory faster than any governor looks: then the kernel is there first."""
        for box in [*self.boxes, *(box for box, _ in self.leaving)]:
            kills = box.oom_kills()
            if kills > box.known_kills:
                box.known_kills = kills
                self.kernels.append(Blow("oom kill", box.name, now() - LOOK_EVERY_SECONDS, now()))

    def _thaw(self, at: float) -> None:
        for one in [one for one in self.frozen if one.until <= at]:
            self.frozen.remove(one)
            for pid in one.pids:
                signal_process(pid, signal.SIGCONT)
            self.blows.append(replace(one.blow, ended=now()))

    def _deal(self, fault: Fault) -> bool:
        """Return whether there was somebody to hit."""
        verb, _, whom = fault.kind.partition(" ")
        deal: Callable[[Fault, str], bool] = {
            "kill": self._kill,
            "stop": self._stop_container,
            "freeze": self._freeze,
            "restart": self._restart_redis,
            "pause": self._pause_redis,
            "burst": self._burst,
            "replace": self._replace,
            "recycle": self._recycle,
            "quit": self._quit,
            "exhaust": self._exhaust,
            "send": self._send_garbage,
            "delay": self._delay,
            "disconnect": self._disconnect,
            "step": self._step,
        }[verb]
        dealt = deal(fault, whom)
        self.dealt[fault.kind] += dealt
        return dealt

    def _choose(self, role: str, chance: float) -> tuple[Box, Process] | None:
        """Return the process that a fault hits, of either container."""
        found: dict[int, tuple[Box, Process]] = {}
        for box in self.boxes:
            found |= {process.pid: (box, process) for process in box.of_role(role)}
        chosen = pick(list(found), chance)
        return None if chosen is None else found[chosen]

    def _kill(self, fault: Fault, whom: str) -> bool:
        if whom == "container":
            return self._kill_container(fault)
        chosen = self._choose(whom, fault.chance)
        if chosen is None:
            return False
        box, process = chosen
        began = now()
        signal_process(process.pid, signal.SIGKILL)
        wait_for(lambda: not is_there(process), "its death")
        self.blows.append(hit(fault.kind, box, process, self._still_since(box, process, began)))
        return True

    def _still_since(self, box: Box, process: Process | None, at: float) -> float:
        """Return when what is killed began to stand still: what it did since then, nobody was told."""
        return min(
            (
                one.blow.began
                for one in self.frozen
                if one.blow.box == box.name and (process is None or process.pid in one.pids)
            ),
            default=at,
        )

    def _kill_container(self, fault: Fault) -> bool:
        box = self.boxes.pop(int(fault.chance * len(self.boxes)))
        began = now()
        box.kill()
        self.blows.append(Blow("kill container", box.name, self._still_since(box, None, began), now()))
        self._start_box()
        return True

    def _stop_container(self, fault: Fault, _: str) -> bool:
        box = self.boxes[int(fault.chance * len(self.boxes))]
        if not box.of_role("governor"):
            # Perhaps it is just starting: the kernel keeps a TERM from a PID 1 that has no handler yet.
            return False
        self.boxes.remove(box)
        self.leaving.append((box, now()))
        box.terminate()
        self._start_box()
        return True

    def _freeze(self, fault: Fault, whom: str) -> bool:
        chosen = self._choose("main" if whom == "worker" else whom, fault.chance)
        if chosen is None:
            return False
        box, process = chosen
        family = box.below(process.pid) if whom == "worker" else [process]
        blow = hit(fault.kind, box, process, now())
        for one in family:
            signal_process(one.pid, signal.SIGSTOP)
        self.frozen.append(Frozen(blow, [one.pid for one in family], now() + fault.seconds))
        return True

    def _restart_redis(self, _fault: Fault, _whom: str) -> bool:
        began = now()
        self.store.restart()
        self.blows.append(Blow("restart redis", "", began, now()))
        return True

    def _pause_redis(self, fault: Fault, _: str) -> bool:
        began = now()
        self.store.pause(fault.seconds)
        self.blows.append(Blow("pause redis", "", began, now()))
        return True

    def _burst(self, fault: Fault, _: str) -> bool:
        self.sender.want_burst("low" if fault.chance < 0.5 else "high")
        return True

    def _replace(self, fault: Fault, _: str) -> bool:
        chosen = self._choose("main", fault.chance)
        if chosen is not None:
            self._terminate(*chosen)
        return chosen is not None

    def _terminate(self, box: Box, main: Process) -> None:
        self.blows.append(hit("replace", box, main, now()))
        signal_process(main.pid, signal.SIGTERM)

    def _recycle(self, fault: Fault, _: str) -> bool:
        box = self.boxes[int(fault.chance * len(self.boxes))]
        # A governor that was just killed does not answer, and one that is replacing a worker already declines.
        with suppress(NoSupervisor, Declined):
            ask_governor(box.runtime_dir, "recycle", table="slow" if fault.chance * 4 % 2 < 1 else "fast")
        return True

    def _quit(self, fault: Fault, whom: str) -> bool:
        chosen = self._choose(whom, fault.chance)
        if chosen is None:
            return False
        box, process = chosen
        generation = self.store.find_worker(box.name, process.inner)
        blow = hit(fault.kind, box, process, self._still_since(box, process, now()))
        self.quitting.append(Quitting(blow, process, generation))
        signal_process(process.pid, signal.SIGQUIT)
        return True

    def _exhaust(self, _fault: Fault, _whom: str) -> bool:
        self.sender.want_memory_error()
        return True

    def _send_garbage(self, fault: Fault, _: str) -> bool:
        self.sender.want_garbage("low" if fault.chance < 0.5 else "default")
        return True

    def _delay(self, _fault: Fault, _whom: str) -> bool:
        self.sender.want_thousands()
        return True

    def _disconnect(self, fault: Fault, _: str) -> bool:
        began = now()
        if not self.store.disconnect():
            return False
        self.blows.append(Blow(fault.kind, "", began, now()))
        return True

    def _step(self, fault: Fault, whom: str) -> bool:
        began, box = now(), self.boxes[int(fault.chance * len(self.boxes))]
        if whom == "redis":
            if not self.store.step(fault.seconds):
                return False
        else:
            box.clock.set(fault.seconds)
            box.clock_was_set = True
        self.blows.append(Blow(fault.kind, "" if whom == "redis" else box.name, began, now()))
        return True

    def _set_clocks_right(self) -> None:
        """Set every clock, and have the workers leave that hold tasks until some time by a wrong one."""
        self.store.step(0)
        for box in self.boxes:
            if box.clock_was_set:
                box.clock.set(0)
                for main in box.of_role("main"):
                    self._terminate(box, main)

    def _all_have_left(self) -> bool:
        self._tick()
        return not self.leaving and not self.quitting

    def _is_quiet(self) -> bool:
        self._tick()
        waits = any(map(self.store.waiting, ("high", "default", "low")))
        return not waits and not self.store.there() and all(len(box.of_role("main")) == 2 for box in self.boxes)

    def _only_the_living_hold_leases(self) -> bool:
        """A main process killed as it starts may be unknown to its governor: its lease has to run out."""
        return self.store.leases() == sum(len(box.of_role("main")) for box in self.boxes)

    def _leftovers(self) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        defunct, browsers = [], []
        for box in self.boxes:
            for process in box.processes():
                if process.state == "Z":
                    defunct.append(f"{box.name}/{process.inner} {process.name}")
                elif process.role in ("chromedriver", "browser"):
                    browsers.append(f"{box.name}/{process.inner} {process.name}")
        return (tuple(defunct), tuple(browsers)) if defunct or browsers else None


def hit(kind: str, box: Box, process: Process, began: float) -> Blow:
    """Return the blow that a fault of that kind is to a process."""
    only = frozenset({process.inner})
    if kind in ("kill main", "quit main", "replace", "freeze main", "freeze worker"):
        return Blow(kind, box.name, began, now(), mains=only)
    return Blow(kind, box.name, began, now(), children=only)


def signal_process(pid: int, signum: int) -> None:
    """Signal a process that may have ended meanwhile."""
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


def is_there(process: Process) -> bool:
    """Tell whether a process lives."""
    try:
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def say(text: str) -> None:
    """Print a line that is seen when the test fails, and at once with -s."""
    print(text, flush=True)
