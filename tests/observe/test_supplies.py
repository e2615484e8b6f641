"""What runs out beside memory, read from cgroups that are folders, and from this process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recyclery.observe.processes import read_process
from recyclery.observe.snapshot import Child, Owner, Supply
from recyclery.observe.supplies import (
    PROCESSES,
    READ_EVERY_SECONDS,
    PidsCgroup,
    Supplies,
    count_open_bytes,
    find_pids_cgroup,
    read_folders,
    read_open_files,
    read_pids,
)
from support.snapshots import MIB


def this_child() -> Child:
    found = read_process(os.getpid())
    assert found is not None
    return Child(Owner("slow", found.pid, found.start_ticks), (found,))


def pids_folder(folder: Path, current: int, most: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pids.current").write_text(f"{current}\n")
    (folder / "pids.max").write_text(f"{most}\n")
    return folder


@pytest.mark.parametrize(
    ("cgroup", "kind", "options"),
    [("0::/pod/own", "cgroup2", "rw"), ("8:pids:/pod/own\n0::/", "cgroup", "rw,pids")],
    ids=["v2", "v1"],
)
def test_the_lowest_limit_of_processes_counts(tmp_path: Path, cgroup: str, kind: str, options: str) -> None:
    root = tmp_path / "cg"
    pids_folder(root, 900, "max")
    pod = pids_folder(root / "pod", 60, "100")
    pids_folder(pod / "own", 50, "1000")
    (tmp_path / "cgroup").write_text(f"{cgroup}\n")
    (tmp_path / "mountinfo").write_text(f"30 22 0:26 / {root} rw - {kind} {kind} {options}\n")
    assert find_pids_cgroup(tmp_path) == PidsCgroup(pod, 100)


def test_processes_without_a_limit_are_no_supply(tmp_path: Path) -> None:
    pids_folder(tmp_path / "cg", 900, "max")
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "mountinfo").write_text(f"30 22 0:26 / {tmp_path}/cg rw - cgroup2 cgroup2 rw\n")
    assert find_pids_cgroup(tmp_path) is None
    assert list(read_pids(None, ())) == []
    assert find_pids_cgroup(tmp_path / "nowhere") is None


def test_the_child_with_most_threads_is_named_once_they_are_scarce(tmp_path: Path) -> None:
    folder = pids_folder(tmp_path, 79, "100")
    assert list(read_pids(PidsCgroup(folder, 100), (this_child(),))) == [Supply(PROCESSES, 79, 100)]
    pids_folder(tmp_path, 80, "100")
    (scarce,) = read_pids(PidsCgroup(folder, 100), (this_child(),))
    assert scarce.holder == f"slow/{os.getpid()}"
    assert scarce.held == len(list(Path("/proc/self/task").iterdir()))


def test_the_open_files_of_a_process_are_counted_against_its_own_limit() -> None:
    code = "import os, resource as r, time; r.setrlimit(r.RLIMIT_NOFILE, (100, 100)); "
    code += "files = [os.dup(0) for _ in range(90)]; print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.readline()
        (files,) = read_open_files([("slow/7", program.pid)])
        program.kill()
    assert (files.name, files.used, files.limit) == ("open files of slow/7", 93, 100)
    assert files.is_scarce
    assert list(read_open_files([("gone", program.pid)])) == []


def test_a_file_systems_room_and_inodes_are_read_once_however_many_folders_are_on_it(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    found = list(read_folders((str(tmp_path), str(tmp_path / "other"), str(tmp_path / "missing")), ()))
    names = [str(tmp_path), f"inodes of {tmp_path}"]
    assert [each.name for each in found] == names[: len(found)]
    assert 0 < found[0].used < found[0].limit


def test_files_that_a_child_has_open_are_its_own_also_once_they_are_deleted(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    before = count_open_bytes(this_child(), device)
    with (tmp_path / "large").open("wb") as file, os.fdopen(os.dup(file.fileno()), "wb"):
        file.write(b"x" * (8 * MIB))
        file.flush()
        (tmp_path / "large").unlink()
        assert count_open_bytes(this_child(), device) - before == pytest.approx(8 * MIB, rel=0.01)
        assert count_open_bytes(this_child(), device + 1) == 0


@pytest.mark.parametrize(
    ("supply", "is_scarce"),
    [
        (Supply("/tmp", 85 << 30, 100 << 30, in_bytes=True), False),  # a name
        (Supply("/dev/shm", 52 * MIB, 64 * MIB, in_bytes=True), True),  # as above
        (Supply("inodes", 15_000_000, 16_000_000, is_vast=True), False),
        (Supply("inodes", 90_000, 100_000, is_vast=True), True),
        (Supply(PROCESSES, 900, 1000), True),
        (Supply(PROCESSES, 0, 0), False),
    ],
)
def test_of_a_large_disk_a_tenth_is_plenty(supply: Supply, is_scarce: bool) -> None:
    assert supply.is_scarce == is_scarce


def test_all_is_read_again_only_after_a_while(tmp_path: Path) -> None:
    supplies = Supplies((str(tmp_path),))
    first = supplies.read((), [("slow", os.getpid())], 100.0)
    with (tmp_path / "file").open("wb") as file:
        file.write(b"x" * MIB)
        file.flush()
        assert supplies.read((), [], 100.0 + READ_EVERY_SECONDS - 0.1) is first
        assert supplies.read((), [], 100.0 + READ_EVERY_SECONDS) is not first
