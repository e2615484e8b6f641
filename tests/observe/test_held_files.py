"""Memory in files without a name, found at the processes that hold them open."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recyclery.observe.held_files import HeldFile, HeldFiles, list_nameless, share_files, tmpfs_devices
from recyclery.observe.snapshot import Owner, Process
from support.snapshots import CHILD, MIB, process

OTHER = Owner("slow", 21, 2000)
MEMFD = "import os; file = os.memfd_create('leak')"
DELETED = "import os, tempfile; kept = tempfile.TemporaryFile(dir={folder!r}); file = kept.fileno()"


@contextmanager
def holder(opens: str, mib: int = 20) -> Iterator[int]:
    """A process that opens a file, writes that much and keeps it; gives the pid."""
    code = f"{opens}; os.write(file, b'x' * ({mib} << 20)); print('there', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == b"there\n"
            yield program.pid
        finally:
            program.kill()


def held_bytes(pid: int) -> int:
    return sum(file.held_bytes for file in list_nameless(pid, tmpfs_devices()))


def test_a_memfd_is_found_at_the_process_that_has_it_open() -> None:
    with holder(MEMFD) as pid:
        assert held_bytes(pid) == 20 * MIB


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no /dev/shm here")
def test_a_file_on_a_tmpfs_that_was_deleted_is_found_at_the_process_that_has_it_open() -> None:
    with holder(DELETED.format(folder="/dev/shm")) as pid:
        assert held_bytes(pid) == 20 * MIB


def test_a_deleted_file_on_a_disk_takes_no_memory(tmp_path: Path) -> None:
    if tmp_path.stat().st_dev in tmpfs_devices():
        pytest.skip(f"{tmp_path} is on a tmpfs")
    with holder(DELETED.format(folder=str(tmp_path))) as pid:
        assert held_bytes(pid) == 0


def test_a_process_that_is_gone_holds_nothing() -> None:
    assert held_bytes(2**22 + 1) == 0


def file(inode: int, mib: int) -> HeldFile:
    return HeldFile(1, inode, mib * MIB)


def test_a_file_counts_with_the_child_that_alone_holds_it() -> None:
    files = {CHILD: {file(1, 60), file(2, 10)}, OTHER: {file(2, 10), file(3, 5)}}
    assert share_files(files, set(), {CHILD: 0, OTHER: 0}) == {CHILD: 60 * MIB, OTHER: 5 * MIB}


def test_a_file_that_the_main_process_holds_too_counts_with_no_child() -> None:
    assert share_files({CHILD: {file(1, 60)}}, {file(1, 60)}, {CHILD: 0}) == {}


def test_what_a_child_has_mapped_of_its_files_is_not_counted_again() -> None:
    assert share_files({CHILD: {file(1, 60)}}, set(), {CHILD: 40 * MIB}) == {CHILD: 20 * MIB}
    assert share_files({CHILD: {file(1, 60)}}, set(), {CHILD: 90 * MIB}) == {}


def children(pid: int) -> dict[Owner, tuple[Process, ...]]:
    return {CHILD: (process(pid, name="python"),)}


def test_files_are_looked_for_only_while_memory_belongs_to_no_process() -> None:
    with holder(MEMFD) as pid:
        held = HeldFiles()
        assert held.update(children(pid), (), 15 * MIB, 0.0) == {}
        assert held.update(children(pid), (), 20 * MIB, 1.0) == {CHILD: 20 * MIB}
        assert held.update(children(pid), (), 0, 2.0) == {}


def test_files_are_looked_for_again_as_soon_as_there_is_more_of_such_memory() -> None:
    held = HeldFiles()
    assert held.update(children(os.getpid()), (), 30 * MIB, 0.0) == {}
    with holder(MEMFD) as pid:
        assert held.update(children(pid), (), 31 * MIB, 1.0) == {}
        assert held.update(children(pid), (), 50 * MIB, 2.0) == {CHILD: 20 * MIB}


def test_a_browser_is_not_asked_for_its_files() -> None:
    with holder(MEMFD) as pid:
        assert HeldFiles().update({CHILD: (process(pid),)}, (), 50 * MIB, 0.0) == {}
