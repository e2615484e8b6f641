"""Children's output and the supervisor's own log: cut into lines, formatted, and written without blocking."""

from __future__ import annotations

import os
import re
import select
import stat
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec

# Docker's log drivers cut lines there too; a line without an end must not fill memory.
LONGEST_LINE_BYTES = 16 << 10
TAIL_LINES = 20
TAIL_LINE_BYTES = 1000
OWN_NAME = "recyclery"
# How Celery's lines begin: [2026-11-22 10:00:00,123: INFO/MainProcess] text.
CELERY_LINE = re.compile(r"\[[\d-]+ [\d:,.]+: ([A-Z]+)/([^\]]*)\] (.*)", re.DOTALL)
BUFFER_BYTES = 1 << 20
CHUNK_BYTES = 64 << 10


class LineLog:
    """One child's output, as the logger of supervisord's dispatchers: they call `info` and read `handlers`."""

    handlers: tuple[()] = ()

    def __init__(self, outlet: Outlet, log_format: LogFormat, name: str, tail: deque[bytes]) -> None:
        self._outlet = outlet
        self._format = log_format
        self._name = name
        self._tail = tail
        self._rest = b""

    def info(self, data: bytes | str) -> None:
        """Log a piece of output, which may end in the middle of a line or of a character."""
        *lines, self._rest = (self._rest + (data.encode() if isinstance(data, str) else data)).split(b"\n")
        for line in lines:
            self._write_line(self._cut(line), cut=False)
        self._rest = self._cut(self._rest)

    def _cut(self, line: bytes) -> bytes:
        """Log the beginning of a line that is too long; return its end."""
        while len(line) > LONGEST_LINE_BYTES:
            at = character_boundary(line, LONGEST_LINE_BYTES)
            self._write_line(line[:at], cut=True)
            line = line[at:]
        return line

    def _write_line(self, line: bytes, *, cut: bool) -> None:
        self._tail.append(line[:TAIL_LINE_BYTES])
        self._outlet.put(self._format.output(self._name, line, cut=cut))

    def close(self) -> None:
        """Log a last line that has no newline."""
        if self._rest:
            self._write_line(self._rest, cut=False)
            self._rest = b""


def character_boundary(line: bytes, at: int) -> int:
    """Return the nearest index up to `at` that is not inside a UTF-8 character, if there is one close by."""
    return next((index for index in range(at, at - 4, -1) if line[index] & 0xC0 != 0x80), at)


class TextFormat:
    """Formats lines, with their newline: the child's name and its line unchanged."""

    def output(self, name: str, line: bytes, *, cut: bool) -> bytes:
        """Return a line that a child printed, byte for byte; `cut` when it goes on in the next one."""
        return b"%s | %s\n" % (name.encode(), line)

    def banner(self, name: str, line: str) -> bytes:
        """Return a line that announces the start of a pool alone: people search for exactly that text."""
        return f"{line}\n".encode()

    def own(self, level: str, message: str) -> bytes:
        """Return our own line, which begins as Celery's do; a message of several lines becomes several."""
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
        partial = {"partial": True} if cut else {}
        if not (found := CELERY_LINE.fullmatch(text)):
            return encode_entry(name, {}, text, partial)
        level, process, message = found.groups()
        return encode_entry(name, {"level": level.lower()}, message, {"process": process} | partial)

    def banner(self, name: str, line: str) -> bytes:
        """Return the line as the pool's."""
        return encode_entry(name, {"level": "info"}, line, {})

    def own(self, level: str, message: str) -> bytes:
        """Return the message as the supervisor's."""
        return encode_entry(OWN_NAME, {"level": level}, message, {})


def encode_entry(name: str, level: dict[str, str], message: str, more: dict[str, Any]) -> bytes:
    """Return one object and its newline."""
    entry = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "pool": name}
    return msgspec.json.encode(entry | level | {"message": message} | more) + b"\n"


LogFormat: TypeAlias = TextFormat | JsonFormat
FORMATS: dict[str, LogFormat] = {"text": TextFormat(), "json": JsonFormat()}


class Outlet:
    """Standard output, as a write-only member of supervisord's socket map (the methods are asyncore's).

    `format_dropped` returns the line that is written in place of lines that were dropped, with their number.
    """

    def __init__(self, format_dropped: Callable[[int], bytes], fd: int = 1) -> None:
        self.fd = open_nonblocking(fd)
        # Where a write may block, POLLOUT on a pipe promises that PIPE_BUF bytes will not (pipe(7)).
        self._never_blocks = is_file(self.fd) or not os.get_blocking(self.fd)
        self.dropped_total = 0
        self._format_dropped = format_dropped
        self._buffer = bytearray()
        self._dropped = 0

    @property
    def buffered_bytes(self) -> int:
        """How much waits to be written."""
        return len(self._buffer)

    def put(self, line: bytes) -> None:
        """Queue one line with its newline; drop and count it where the reader is too far behind."""
        if self.buffered_bytes > BUFFER_BYTES // 2 and self._never_blocks and not self._dropped:
            # The loop reads faster than it writes; a reader that keeps up must not lose lines.
            self.handle_write_event()
        # After a dropped line the next ones are dropped too until the number is written in their place.
        if self._dropped or self.buffered_bytes + len(line) > BUFFER_BYTES:
            self._dropped += 1
            self.dropped_total += 1
        else:
            self._buffer += line

    def readable(self) -> bool:
        """Return False: it is only written to."""
        return False

    def writable(self) -> bool:
        """Return whether lines wait to be written."""
        return bool(self._buffer)

    def handle_write_event(self) -> None:
        """Write as much as the reader accepts without blocking; where a write might block, once."""
        while self._buffer and self._write_some() and self._never_blocks:
            pass
        if self._dropped and self.buffered_bytes < BUFFER_BYTES // 2:
            self._buffer += self._format_dropped(self._dropped)
            self._dropped = 0

    def _write_some(self) -> bool:
        """Write once; return whether all of it was accepted."""
        chunk = self._buffer[: CHUNK_BYTES if self._never_blocks else select.PIPE_BUF]
        try:
            written = os.write(self.fd, chunk)
        except BlockingIOError:
            written = 0
        except OSError:
            # There is no reader any more; losing the log is better than stopping the container.
            written = len(chunk)
        del self._buffer[:written]
        return written == len(chunk)

    def handle_error(self) -> None:
        """Ignore exceptions in a handler, for which supervisord calls this."""

    def drain(self, seconds: float) -> None:
        """Write the queued lines before the process ends, for at most `seconds`."""
        deadline = time.monotonic() + seconds
        poller = select.poll()
        poller.register(self.fd, select.POLLOUT)
        while self._buffer and (left := deadline - time.monotonic()) > 0:
            if poller.poll(left * 1000):
                self.handle_write_event()


def is_file(fd: int) -> bool:
    """Return whether a descriptor is of a regular file, on which a write never waits for a reader."""
    return stat.S_ISREG(os.fstat(fd).st_mode)


def open_nonblocking(fd: int) -> int:
    """Return another descriptor of the same pipe, terminal or file, on which a write never blocks.

    The given one is not changed: its flags are shared with other processes. Where it cannot be opened again (a
    socket, or root's pipe) it is used itself: non-blocking as PID 1, which shares it with nobody, else with
    writes that fit. A file is used itself too: opened again it would have its own position, and a shell that
    also writes to it would overwrite our lines.
    """
    if is_file(fd):
        return fd
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        if os.getpid() == 1:
            os.set_blocking(fd, False)
        return fd
