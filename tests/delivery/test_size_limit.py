"""How large a message may be: a tenth of the lowest memory limit."""

from pathlib import Path

import pytest

from recyclery_worker.delivery.size_limit import largest_message_bytes, read_cgroup_limits


def make_files(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_the_limits_of_a_cgroup_and_those_above_it_are_read_whatever_the_version(tmp_path: Path) -> None:
    second, first = tmp_path / "v2", tmp_path / "v1"
    make_files(second, {"cgroup": "0::/a/b\n", "sys/a/b/memory.max": "max\n", "sys/a/memory.max": "500\n"})
    make_files(
        first, {"cgroup": "3:cpu:/x\n4:memory:/a\n0::/\n", "sys/memory/a/memory.limit_in_bytes": "700\n"}
    )
    assert [list(read_cgroup_limits(each / "cgroup", each / "sys")) for each in (second, first)] == [
        [500],
        [700],
    ]
    assert list(read_cgroup_limits(tmp_path / "none", tmp_path)) == []


def test_the_limit_of_the_settings_counts_where_it_is_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECYCLERY_RUNTIME_DIR", str(tmp_path))
    assert largest_message_bytes() > 64 << 20
    make_files(tmp_path, {"settings.json": '{"memory": {"limit_bytes": 1000000}}'})
    assert largest_message_bytes() == 100_000
