"""Cuts one child's output into lines, passes them on, and keeps the last ones."""

from __future__ import annotations

import os
import re
import select
import stat
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

# Where Docker's own log drivers cut; a line without an end must not fill memory.
LONGEST_LINE_BYTES = 16 << 10
TAIL_LINES = 20
TAIL_LINE_BYTES = 1000


class LineLog:
    """One child's output.

    Stands where supervisord's dispatchers expect a logger: they call `info` and look at `handlers`.
    """

    handlers: tuple[()] = ()

    def __init__(self, outlet: Outlet, log_format: LogFormat, name: str, tail: deque[bytes]) -> None:
        self._outlet = outlet
        self._format = log_format
        self._name = name
        self._tail = tail
        self._rest = b""

    def info(self, data: bytes | str) -> None:
        """Take a piece of output, which may end in the middle of a line or of a letter."""
        *lines, self._rest = (self._rest + (data.encode() if isinstance(data, str) else data)).split(b"\n")
        for line in lines:
            self._pass_on(self._cut(line), cut=False)
        self._rest = self._cut(self._rest)

    def _cut(self, line: bytes) -> bytes:
        """Pass on the beginning of a line that is too long; return its end."""
        while len(line) > LONGEST_LINE_BYTES:
            at = letter_boundary(line, LONGEST_LINE_BYTES)
            self._pass_on(line[:at], cut=True)
            line = line[at:]
        return line

    def _pass_on(self, line: bytes, *, cut: bool) -> None:
        self._tail.append(line[:TAIL_LINE_BYTES])
        self._outlet.put(self._format.output(self._name, line, cut=cut))

    def close(self) -> None:
        """Pass on a last line that has no newline."""
        if self._rest:
            self._pass_on(self._rest, cut=False)
            self._rest = b""


def letter_boundary(line: bytes, at: int) -> int:
    """Return the place nearest before `at` that is not inside a letter of UTF-8, if there is one close by."""
    for place in range(at, at - 4, -1):
        if line[place] & 0xC0 != 0x80:
            return place
    return at


OWN_NAME = "recyclery"
# How Celery's lines begin: [2026-11-22 10:00:00,123: INFO/MainProcess] text.
CELERY_LINE = re.compile(r"\[[\d-]+ [\d:,.]+: ([A-Z]+)/([^\]]*)\] (.*)", re.DOTALL)


class LogFormat(Protocol):
    """Makes lines, their newline included."""

    def output(self, name: str, line: bytes, *, cut: bool) -> bytes:
        """Return a line that a child printed; `cut` when it goes on in the next one."""

    def banner(self, name: str, line: str) -> bytes:
        """Return a line that announces the start of a pool."""

    def own(self, level: str, message: str) -> bytes:
        """Return what the supervisor itself has to say."""


class TextFormat:
    """The child's name and its line as it is."""

    def output(self, name: str, line: bytes, *, cut: bool) -> bytes:
        """Return a line that a child printed, byte for byte."""
        return b"%s | %s\n" % (name.encode(), line)

    def banner(self, name: str, line: str) -> bytes:
        """Return the line alone: people look for just that text."""
        return f"{line}\n".encode()

    def own(self, level: str, message: str) -> bytes:
        """Return a line that begins as Celery's do; a message of several lines becomes several."""
        at = datetime.now().isoformat(" ", "milliseconds").replace(".", ",")
        lines = message.splitlines() or [""]
        return "".join(f"{OWN_NAME} | [{at}] {line}\n" for line in lines).encode()


class JsonFormat:
    """One object per line: time, pool, level where known, message; for Celery's lines their process too.

    `partial` is true where a line was so long that it goes on in the next object.
    """

    def output(self, name: str, line: bytes, *, cut: bool) -> bytes:
        """Return a line that a child printed; what is not UTF-8 in it is written as \\xNN."""
        text = line.decode("utf-8", "backslashreplace").removesuffix("\r")
        known = CELERY_LINE.fullmatch(text)
        if known is None:
            return encode(name, None, text, {"partial": True} if cut else {})
        level, process, message = known.groups()
        return encode(name, level.lower(), message, {"process": process} | ({"partial": True} if cut else {}))

    def banner(self, name: str, line: str) -> bytes:
        """Return the line as the pool's."""
        return encode(name, "info", line, {})

    def own(self, level: str, message: str) -> bytes:
        """Return the message as the supervisor's."""
        return encode(OWN_NAME, level, message, {})


def encode(name: str, level: str | None, message: str, more: dict[str, Any]) -> bytes:
    """Return one object and its newline."""
    entry: dict[str, Any] = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "pool": name}
    if level is not None:
        entry["level"] = level
    return msgspec.json.encode(entry | {"message": message} | more) + b"\n"


FORMATS: dict[str, LogFormat] = {"text": TextFormat(), "json": JsonFormat()}


BUFFER_BYTES = 1 << 20
CHUNK_BYTES = 64 << 10


class Outlet:
    """A write-only member of supervisord's socket map (the methods are asyncore's).

    `note_dropped` makes the line that says, in their place, how many lines were dropped.
    """

    def __init__(self, note_dropped: Callable[[int], bytes], fd: int = 1) -> None:
        self.fd = open_without_blocking(fd)
        # Where it may wait, POLLOUT on a pipe promises that PIPE_BUF bytes do not (pipe(7)).
        self._never_waits = is_file(self.fd) or not os.get_blocking(self.fd)
        self.dropped_in_all = 0
        self.buffered_bytes = 0
        self._note_dropped = note_dropped
        self._lines: deque[bytes] = deque()
        self._dropped = 0

    def put(self, line: bytes) -> None:
        """Take one line, its newline included; drop it, and count that, when the reader is too far behind."""
        if self.buffered_bytes > BUFFER_BYTES // 2 and self._never_waits and not self._dropped:
            # The loop reads faster than it writes; a reader that keeps up is to lose nothing.
            self.handle_write_event()
        # Once one is dropped the next are too, until it was said: so the number stands where the lines stood.
        if self._dropped or self.buffered_bytes + len(line) > BUFFER_BYTES:
            self._dropped += 1
            self.dropped_in_all += 1
            return
        self._append(line)

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        self.buffered_bytes += len(line)

    def readable(self) -> bool:
        """Never: it is only written to."""
        return False

    def writable(self) -> bool:
        """Tell whether anything waits to be written."""
        return bool(self._lines)

    def handle_write_event(self) -> None:
        """Write as much as goes in without waiting; where a write might wait, once."""
        while self._lines and self._write_some() and self._never_waits:
            pass
        if self._dropped and self.buffered_bytes < BUFFER_BYTES // 2:
            self._append(self._note_dropped(self._dropped))
            self._dropped = 0

    def _write_some(self) -> bool:
        """Write once; tell whether all of it went in."""
        most = CHUNK_BYTES if self._never_waits else select.PIPE_BUF
        chunk = bytearray()
        while self._lines and len(chunk) < most:
            line = self._lines.popleft()
            room = most - len(chunk)
            chunk += line[:room]
            if len(line) > room:
                self._lines.appendleft(line[room:])
        written = self._write(chunk)
        self.buffered_bytes -= written
        if written < len(chunk):
            self._lines.appendleft(bytes(chunk[written:]))
        return written == len(chunk)

    def _write(self, chunk: bytearray) -> int:
        try:
            return os.write(self.fd, chunk)
        except BlockingIOError:
            return 0
        except OSError:
            # Nobody will ever read this again; a log is not worth a container.
            return len(chunk)

    def handle_error(self) -> None:
        """Go on: supervisord calls this for an exception in a handler."""

    def drain(self, seconds: float) -> None:
        """Write what waits, for at most so long: the last words before the process ends."""
        deadline = time.monotonic() + seconds
        poller = select.poll()
        poller.register(self.fd, select.POLLOUT)
        while self._lines and (left := deadline - time.monotonic()) > 0:
            if poller.poll(left * 1000):
                self.handle_write_event()


def is_file(fd: int) -> bool:
    """Tell whether a descriptor is of a plain file, on which a write never waits for a reader."""
    return stat.S_ISREG(os.fstat(fd).st_mode)


def open_without_blocking(fd: int) -> int:
    """Return another descriptor of the same pipe, terminal or file, on which a write never waits.

    The given one stays as it is: its flags are shared with other processes. Where it cannot be opened anew (a
    socket, or a pipe of root's) it is used itself: as PID 1, who shares it with nobody, without waiting; else
    with writes that fit. A file is used itself too: opened anew it would have a position of its own, and a
    shell that writes to it as well would write over our lines.
    """
    if is_file(fd):
        return fd
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        if os.getpid() == 1:
            os.set_blocking(fd, False)
        return fd
