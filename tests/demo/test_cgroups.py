"""Finding the memory cgroup from the text of /proc."""

from pathlib import Path

from recyclery_demo.cgroups import MemoryHome, find_memory_home

V1_CGROUP = """\
8:pids:/
4:memory:/jobs/7f3a
1:cpu,cpuacct:/
0::/
"""
V1_MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V2_CGROUP = "0::/user.slice/user-1000.slice/session-3.scope\n"
V2_MOUNTS = """\
24 31 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
35 29 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""
# Docker on cgroup v1: the container sees its host path, and a mount of just that part.
DOCKER_V1_CGROUP = "5:memory:/docker/0a1b2c\n2:cpuset:/docker/0a1b2c\n"
DOCKER_V1_MOUNTS = (
    "611 605 0:32 /docker/0a1b2c /sys/fs/cgroup/memory ro,nosuid,nodev,noexec master:17 - "
    "cgroup cgroup rw,memory\n"
)
# A cgroup namespace hides the rest: both sides say that they are the top.
NAMESPACE_CGROUP = "0::/\n"
NAMESPACE_MOUNTS = "840 833 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw,nsdelegate\n"


def test_on_v1_it_is_the_path_of_the_memory_controller() -> None:
    assert find_memory_home(V1_CGROUP, V1_MOUNTS) == MemoryHome(
        1, Path("/sys/fs/cgroup/memory/jobs/7f3a"), Path("/sys/fs/cgroup/memory")
    )


def test_on_v2_it_is_the_one_path_there_is() -> None:
    assert find_memory_home(V2_CGROUP, V2_MOUNTS) == MemoryHome(
        2, Path("/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope"), Path("/sys/fs/cgroup")
    )


def test_in_docker_on_v1_the_host_path_is_cut_off() -> None:
    home = find_memory_home(DOCKER_V1_CGROUP, DOCKER_V1_MOUNTS)
    assert home is not None
    assert home.path == Path("/sys/fs/cgroup/memory")


def test_below_a_docker_mount_the_rest_of_the_path_stays() -> None:
    home = find_memory_home("5:memory:/docker/0a1b2c/inner\n", DOCKER_V1_MOUNTS)
    assert home is not None
    assert home.path == Path("/sys/fs/cgroup/memory/inner")


def test_in_a_cgroup_namespace_it_is_the_mount_itself() -> None:
    home = find_memory_home(NAMESPACE_CGROUP, NAMESPACE_MOUNTS)
    assert home == MemoryHome(2, Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup"))


def test_a_mount_made_for_another_namespace_gives_its_top() -> None:
    mounts = "840 833 0:27 /../../else /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
    home = find_memory_home("0::/mine\n", mounts)
    assert home is not None
    assert home.path == Path("/sys/fs/cgroup")


def test_a_path_that_only_begins_like_the_mount_is_not_below_it() -> None:
    home = find_memory_home("5:memory:/docker/0a1b2c3d\n", DOCKER_V1_MOUNTS)
    assert home is not None
    assert home.path == Path("/sys/fs/cgroup/memory")


def test_on_a_hybrid_machine_the_v1_controller_wins() -> None:
    home = find_memory_home(V1_CGROUP, V1_MOUNTS)
    assert home is not None
    assert home.version == 1


def test_a_controller_with_memory_in_its_name_is_not_the_memory_controller() -> None:
    assert find_memory_home("4:memoryless:/\n", V1_MOUNTS) is None


def test_without_a_mount_there_is_none() -> None:
    assert find_memory_home(V1_CGROUP, "22 27 0:21 / /proc rw - proc proc rw\n") is None


def test_spaces_in_a_mount_point_are_read() -> None:
    mounts = r"35 31 0:32 / /sys/fs/cgroup\040one rw - cgroup cgroup rw,memory"
    home = find_memory_home(V1_CGROUP, mounts)
    assert home is not None
    assert home.mount_point == Path("/sys/fs/cgroup one")
