"""What operators told a worker, and the revoked tasks: kept for the worker that follows it in its pool.

Celery keeps that in the memory of the main process. (Its `--statedb` is written at a clean stop only, and holds
only revoked ids.) Here a change is added to a file when it is made: that outlives the process, though not the
container. Each of a pool's slots has its own file: two workers that overlap need no lock. A worker reads both
at its start, and once more when it hears commands itself.
"""

import functools
import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from celery import bootsteps, signals
from celery.utils.functional import maybe_list
from celery.utils.log import get_logger
from celery.utils.time import rate
from celery.worker import state
from celery.worker.control import Panel

from recyclery_worker.control.server import LinkServer
from recyclery_worker.link import read_variable, remembered_folder

logger = get_logger(__name__)

# Written before they are carried out, which may wait for the result backend. `hello` is another worker's, which
# brings the ids that it knows.
REVOKES = ("revoke", "terminate", "revoke_by_stamped_headers", "hello")
# Written when they have been carried out: some are refused.
SETTINGS = ("rate_limit", "time_limit", "add_consumer", "cancel_consumer")
# How long after it was added a queue is surely consumed from, if that can be.
PROVEN_SECONDS = 1.0
# How long after it is ready a worker has surely subscribed to the commands; until then only others hear them.
HEARS_SECONDS = 2.0

Kind = Literal["revoked", "stamp", "rate_limit", "time_limit", "queue"]
Key = tuple[str, ...]
Told = tuple[Kind, str, Any]


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A line of the file: what was told, and when, by time.monotonic, as Celery dates revoked ids."""

    at: float
    kind: Kind
    name: str
    value: Any = None

    @property
    def key(self) -> Key:
        """Of entries with the same one the newest counts."""
        return self.kind, self.name, repr(self.value) if self.kind == "stamp" else ""


class Remembered:
    """A pool's files, of which this worker writes its slot's; what goes wrong with one is logged."""

    def __init__(self, folder: Path, slot: str) -> None:
        self.consumed: set[str] = set()
        """Queues that the broker is known to serve."""
        self._folder, self._path = folder, folder / slot
        self._lines = 0

    def read(self) -> dict[Key, Entry]:
        """Return what is known, oldest first: as many revokes as Celery keeps, and for as long."""
        newest: dict[Key, Entry] = {}
        for entry in sorted(self._read_files(), key=lambda entry: entry.at):
            newest.pop(entry.key, None)
            newest[entry.key] = entry
        revokes = [entry for entry in newest.values() if entry.kind in {"revoked", "stamp"}]
        too_old = time.monotonic() - state.REVOKE_EXPIRES
        for newer, revoke in enumerate(reversed(revokes)):
            # A stamp expires no more than in Celery.
            if newer >= state.REVOKES_MAX or (revoke.kind == "revoked" and revoke.at < too_old):
                del newest[revoke.key]
        return newest

    def _read_files(self) -> Iterator[Entry]:
        for path in self._folder.glob("*[!~]"):
            try:
                lines = path.read_bytes().split(b"\n")
            except OSError as error:
                logger.warning("what the worker before this one was told is not known: %s", error)
                continue
            broken = 0
            for line in filter(None, lines):
                try:
                    yield msgspec.json.decode(line, type=Entry)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    broken += 1
            if broken:
                logger.warning("%s: left out %d lines that cannot be read", path, broken)

    def rewrite(self, entries: Iterable[Entry]) -> None:
        """Have only this in this worker's file."""
        self._write(self._path.with_name(f"{self._path.name}~"), entries)

    def add(self, entries: Iterable[Entry]) -> None:
        """Add to this worker's file, which is rewritten where it has grown far beyond what counts."""
        self._write(self._path, entries)
        if self._lines > 2 * state.REVOKES_MAX:
            self.rewrite(self.read().values())

    def _write(self, path: Path, entries: Iterable[Entry]) -> None:
        is_new = path != self._path
        try:
            # The newline comes first: what a full disk cut off stays a line of its own.
            lines = [b"\n" + msgspec.json.encode(entry) for entry in entries]
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with path.open("wb" if is_new else "ab") as file:
                file.write(b"".join(lines))
            path.replace(self._path)
        except Exception as error:  # of the disk, or of a value that is no JSON: the command is carried out
            logger.warning("what this worker was told is not kept for the next one: %s", error)
            return
        self._lines = len(lines) + (0 if is_new else self._lines)


def what_is_told(command: str, given: Mapping[str, Any]) -> Iterator[Told]:
    """Yield what a control command with these arguments changes."""
    match command:
        case "revoke" | "terminate":
            yield from (("revoked", each, None) for each in maybe_list(given["task_id"]) or ())
        case "hello":
            known = state.revoked
            yield from (("revoked", each, None) for each in given.get("revoked") or () if each not in known)
        case "revoke_by_stamped_headers":
            headers = given["headers"]
            if isinstance(headers, list):
                headers = dict(each.split("=")[:2] for each in headers)
            for header, stamps in headers.items():
                yield from (("stamp", header, stamp) for stamp in maybe_list(stamps))
        case "rate_limit":
            yield "rate_limit", given["task_name"], given["rate_limit"]
        case "time_limit":
            limits = {"soft_time_limit": given.get("soft"), "time_limit": given.get("hard")}
            yield "time_limit", given["task_name"], limits
        case "add_consumer":
            names = ("exchange", "exchange_type", "routing_key")
            how = {name: given[name] for name in names if given.get(name) is not None}
            yield "queue", given["queue"], {**how, **given.get("options", {})}
        case "cancel_consumer":
            yield "queue", given["queue"], None


def kept(memory: Remembered, command: str, handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return the handler of a control command, which then is remembered too."""

    def remember(*args: Any, **kwargs: Any) -> None:
        at = time.monotonic()
        try:
            given = inspect.signature(handler).bind(*args, **kwargs).arguments
            told = [Entry(at, *each) for each in what_is_told(command, given) if isinstance(each[1], str)]
        except Exception:  # The handler says what is wrong with its arguments.
            return
        if command == "add_consumer" and given["queue"] not in memory.consumed:
            consumer = args[0].consumer
            consumer.timer.call_after(PROVEN_SECONDS, add_if_consumed, (memory, consumer, *told))
        elif told:
            memory.add(told)

    @functools.wraps(handler)
    def carry_out(*args: Any, **kwargs: Any) -> Any:
        if command in REVOKES:
            remember(*args, **kwargs)
        reply = handler(*args, **kwargs)
        if command in SETTINGS and "error" not in (reply or ()):
            remember(*args, **kwargs)
        return reply

    return carry_out


def add_if_consumed(memory: Remembered, consumer: Any, added: Entry) -> None:
    """Remember a queue that was added, unless the broker refuses it: that trouble is to end with the worker."""
    if consumer.task_consumer is not None and consumer.task_consumer.consuming_from(added.name):
        memory.consumed.add(added.name)
        memory.add([added])


def recall(worker: Any, entries: Iterable[Entry]) -> None:
    """Have a worker do what another one was told, as its own control commands would."""
    has_limits = False
    stamps: Any = state.revoked_stamps
    known = {(header, repr(stamp)) for header in stamps for stamp in stamps[header]}
    for entry in entries:
        try:
            match entry:
                case Entry(at, "revoked", task_id) if task_id not in state.revoked:
                    state.revoked.add(task_id, at)
                case Entry(_, "stamp", header, stamp) if (header, repr(stamp)) not in known:
                    stamps.setdefault(header, []).append(stamp)
                case Entry(_, "rate_limit", name, limit) if name in worker.app.tasks:
                    rate(limit)  # Raises what would end the worker later.
                    has_limits |= worker.app.tasks[name].rate_limit != limit
                    worker.app.tasks[name].rate_limit = limit
                case Entry(_, "time_limit", name, limits) if name in worker.app.tasks:
                    vars(worker.app.tasks[name]).update(limits)
                case Entry(_, "queue", name, how):
                    set_queue(worker.consumer, name, how)
        except Exception as error:  # of a file that somebody else wrote
            logger.warning("left out what the worker before this one was told: %s: %s", entry, error)
    if has_limits:
        worker.consumer.reset_rate_limits()


def set_queue(consumer: Any, name: str, how: dict[str, Any] | None) -> None:
    """Take tasks from a queue, declared so where it is new, or with None no more."""
    queues: Any = consumer.app.amqp.queues
    if (name in queues.consume_from) == (how is not None):
        return
    if consumer.task_consumer is not None:
        change = consumer.cancel_task_queue if how is None else consumer.add_task_queue
        consumer.call_soon(change, name, **(how or {}))
    elif how is None:
        queues.deselect(name)
    elif name in queues:
        queues.select_add(queues[name])
    else:
        queues.select_add(name, **{"exchange": name, "exchange_type": "direct", **how})


class RecallStep(bootsteps.StartStopStep):
    """Worker bootstep: before the first message is received."""

    # It counts what waits in the queues that there are before some are cancelled.
    requires = (LinkServer,)

    def start(self, parent: Any) -> None:
        folder = remembered_folder(Path(read_variable("RECYCLERY_RUNTIME_DIR")))
        memory = Remembered(folder / read_variable("RECYCLERY_POOL"), read_variable("RECYCLERY_SLOT"))
        known = memory.read()
        queues = parent.app.amqp.queues
        memory.consumed.update(queues.consume_from)
        recall(parent, known.values())
        memory.consumed.update(queues.consume_from)
        memory.rewrite(known.values())
        if known:
            logger.info("goes on as the worker before it was told: %s", put_in_words(known.values()))
        for command in Panel.data.keys() & {*REVOKES, *SETTINGS}:
            Panel.data[command] = kept(memory, command, Panel.data[command])

        def catch_up() -> None:
            now = memory.read()
            recall(parent, [entry for key, entry in now.items() if known.get(key) != entry])
            known.clear()
            # Celery learned more from the workers of other pools and containers (mingle).
            learned = state.revoked.as_dict().items()
            memory.add(Entry(at, "revoked", each) for each, at in learned if ("revoked", each, "") not in now)

        signals.worker_ready.connect(
            lambda **_: parent.timer.call_after(HEARS_SECONDS, catch_up),
            weak=False,
            dispatch_uid="recyclery.remembered",
        )


def put_in_words(entries: Iterable[Entry]) -> str:
    """Return the entries in words, revoked ids by their number."""
    revoked, words = 0, []
    for entry in entries:
        match entry.kind:
            case "revoked" | "stamp":
                revoked += 1
            case "queue":
                words.append(f"queue {entry.name!r} is {'cancelled' if entry.value is None else 'added'}")
            case kind:
                words.append(f"{kind} of {entry.name!r} is {entry.value!r}")
    return ", ".join([*words, f"{revoked} revoked"])
