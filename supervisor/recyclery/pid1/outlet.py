"""The supervisor's standard output: lines kept in a bounded buffer, written only when nobody has to wait."""

from __future__ import annotations

import os
import select
import stat
import time
from collections import deque
from collections.abc import Callable

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
