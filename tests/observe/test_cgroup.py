"""Finding the container's memory limit, and reading what the kernel counts."""

import os
from pathlib import Path

import pytest

from recyclery.observe.cgroup import (
    LimitedCgroup,
    allowed_cores,
    find_memory_cgroup,
    locate,
    read_container,
    stated_budget,
    used_seconds,
)

V1_MOUNT = "31 22 0:27 {root} {point} rw,nosuid - cgroup cgroup rw,memory\n"
V2_MOUNT = "30 22 0:26 {root} {point} rw,nosuid - cgroup2 cgroup2 rw\n"
OTHER_MOUNT = "32 22 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"


@pytest.mark.parametrize(
    ("name", "cgroup", "mountinfo", "expected"),
    [
        ("v1", "4:memory:/docker/ab\n0::/\n", OTHER_MOUNT + V1_MOUNT.format(root="/", point="/cg/memory"),
         (1, "/cg/memory", "docker/ab")),
        ("v1, the mount shows only our part", "4:memory:/docker/ab\n",
         V1_MOUNT.format(root="/docker/ab", point="/cg/memory"), (1, "/cg/memory", ".")),
        ("v2", "0::/kubepods/pod1\n", V2_MOUNT.format(root="/", point="/cg"), (2, "/cg", "kubepods/pod1")),
        ("v2 in a cgroup namespace", "0::/\n", V2_MOUNT.format(root="/", point="/cg"), (2, "/cg", ".")),
        ("hybrid: memory lives on v1", "4:memory:/a\n0::/b\n",
         V2_MOUNT.format(root="/", point="/cg/unified") + V1_MOUNT.format(root="/", point="/cg/memory"),
         (1, "/cg/memory", "a")),
        ("memory beside another controller", "4:cpu,memory:/a\n", V1_MOUNT.format(root="/", point="/m"),
         (1, "/m", "a")),
        ("a mount over another is the one that is seen", "4:memory:/a\n",
         V1_MOUNT.format(root="/", point="/m") + V1_MOUNT.format(root="/a", point="/m"), (1, "/m", ".")),
        ("a path that only begins like the mount's root", "0::/pod10/x\n",
         V2_MOUNT.format(root="/pod1", point="/cg"), (2, "/cg", ".")),
        ("a mount point with a space", "0::/\n", V2_MOUNT.format(root="/", point="/c\\040g"), (2, "/c g", ".")),
        ("none", "1:name=systemd:/\n", "", None),
        ("not mounted", "0::/a\n", OTHER_MOUNT, None),
    ],
)  # fmt: skip
def test_the_memory_controller_is_found_where_it_lives(
    name: str, cgroup: str, mountinfo: str, expected: tuple[int, str, str] | None
) -> None:
    found = locate(cgroup, mountinfo)
    assert (found and (found[0], str(found[1]), str(found[2]))) == expected, name


def proc(tmp_path: Path, cgroup: str, mountinfo: str) -> Path:
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "cgroup").write_text(cgroup)
    (folder / "mountinfo").write_text(mountinfo)
    return folder


def v2_level(folder: Path, limit: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.current").write_text("100\n")
    (folder / "memory.max").write_text(f"{limit}\n")
    return folder


def test_the_lowest_limit_on_the_way_to_the_root_counts(tmp_path: Path) -> None:
    root = v2_level(tmp_path / "cg", "max")
    v2_level(root / "pod", "5000")
    v2_level(root / "pod" / "container", "max")
    self = proc(tmp_path, "0::/pod/container\n", V2_MOUNT.format(root="/", point=root))
    assert find_memory_cgroup(self) == LimitedCgroup(version=2, folder=root / "pod", limit_bytes=5000)


def test_a_path_that_is_not_there_means_the_mounts_root(tmp_path: Path) -> None:
    root = v2_level(tmp_path / "cg", "7000")
    self = proc(tmp_path, "0::/hidden/../elsewhere\n", V2_MOUNT.format(root="/", point=root))
    assert find_memory_cgroup(self) == LimitedCgroup(version=2, folder=root, limit_bytes=7000)


def test_v1s_largest_number_means_no_limit(tmp_path: Path) -> None:
    root = tmp_path / "memory"
    root.mkdir()
    (root / "memory.usage_in_bytes").write_text("1\n")
    (root / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    self = proc(tmp_path, "4:memory:/\n", V1_MOUNT.format(root="/", point=root))
    assert find_memory_cgroup(self) == LimitedCgroup(version=1, folder=root, limit_bytes=None)


def test_the_v2_floor_is_what_no_reclaim_can_free(tmp_path: Path) -> None:
    folder = v2_level(tmp_path, "1000")
    (folder / "memory.current").write_text("900\n")
    (folder / "memory.stat").write_text(
        "anon 300\nfile 400\ninactive_file 250\nshmem 20\nslab_reclaimable 50\nslab_unreclaimable 7\n"
        "kernel_stack 5\npagetables 3\nsock 1\n"
    )
    (folder / "memory.events").write_text("low 0\noom 2\noom_kill 3\n")
    container = read_container(LimitedCgroup(2, folder, 1000), None)
    assert (container.usage_bytes, container.working_set_bytes, container.floor_bytes) == (900, 650, 336)
    assert container.oom_kills == 3


def test_the_v1_floor_counts_the_whole_subtree_and_kernel_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.usage_in_bytes").write_text("900\n")
    (tmp_path / "memory.kmem.usage_in_bytes").write_text("30\n")
    (tmp_path / "memory.stat").write_text("rss 1\ntotal_rss 300\ntotal_shmem 20\ntotal_inactive_file 250\n")
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    container = read_container(LimitedCgroup(1, tmp_path, 1000), None)
    assert (container.working_set_bytes, container.floor_bytes, container.oom_kills) == (650, 350, 4)


def test_a_stated_limit_counts_where_it_is_the_lower_one(tmp_path: Path) -> None:
    folder = v2_level(tmp_path, "1000")
    assert read_container(LimitedCgroup(2, folder, 1000), 800).limit_bytes == 800
    assert read_container(LimitedCgroup(2, folder, 1000), 1200).limit_bytes == 1000


def test_a_stated_budget_is_used_by_our_own_processes() -> None:
    container = stated_budget(1000, 400)
    assert (container.limit_bytes, container.floor_bytes, container.source) == (1000, 400, "a stated budget")


def test_this_machines_own_cgroup_is_read_without_an_error() -> None:
    cgroup = find_memory_cgroup()
    if cgroup is None:
        pytest.skip("no memory controller here")
    assert read_container(LimitedCgroup(cgroup.version, cgroup.folder, 1 << 40), None).usage_bytes > 0


def test_a_cgroup_that_has_used_no_cpu_time_is_not_taken_for_the_machine(tmp_path: Path) -> None:
    (tmp_path / "cpuacct").mkdir()
    (tmp_path / "cpuacct/cpuacct.usage").write_text("0\n")
    assert used_seconds(tmp_path) == 0
    (tmp_path / "cpu.stat").write_text("usage_usec 0\nuser_usec 0\n")
    (tmp_path / "cpuacct/cpuacct.usage").write_text("7\n")
    assert used_seconds(tmp_path) == 0


@pytest.mark.parametrize("text", ["", "max\n", "-1\n", "none\n", "1.5\n"])
def test_a_cpu_file_without_a_number_means_no_quota_and_the_machines_time(tmp_path: Path, text: str) -> None:
    for name in (
        "cpu.max",
        "cpu.stat",
        "cpu/cpu.cfs_quota_us",
        "cpu/cpu.cfs_period_us",
        "cpuacct/cpuacct.usage",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert allowed_cores(tmp_path) == len(os.sched_getaffinity(0))
    assert used_seconds(tmp_path) > 0
