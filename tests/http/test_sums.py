"""No document tells of more memory than the container holds, however much its processes share."""

from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from recyclery.history.recorder import Recorder
from recyclery.history.records import PoolSample, Record
from recyclery.history.store import Writer
from recyclery.http.metrics import render
from recyclery.http.status import build_status
from recyclery.observe.snapshot import Owner, Snapshot
from support.readings import readings
from support.snapshots import LEARNED, MIB, SETTINGS, board, child, process, slow_view, snapshot

FLOOR = 500 * MIB
PRELOADED = snapshot(
    *(child(mib=300, owner=Owner("slow", 20 + n, 2000), shared_bytes=250 * MIB) for n in range(3)),
    floor_mib=500,
    pools=(slow_view(main_bytes=280 * MIB),),
)
BROWSERS = snapshot(
    *(child(process(40 + n, mib=400), mib=60, owner=Owner("slow", 20 + n, 2000)) for n in range(3)),
    floor_mib=500,
    pools=(slow_view(main_bytes=60 * MIB),),
)
both = pytest.mark.parametrize("seen", [PRELOADED, BROWSERS], ids=["a preloaded app", "browsers that share"])


@both
def test_the_status_tells_of_no_more_than_the_container_holds(seen: Snapshot) -> None:
    status = build_status(board(), seen, lambda _: 0)
    held = sum(one.tree_bytes for pool in status.pools.values() for one in pool.children)
    assert 0 < held + status.container.unattributed_bytes <= FLOOR


@both
def test_the_metrics_tell_of_no_more_than_the_container_holds(seen: Snapshot) -> None:
    lines = render(replace(readings(), snapshot=seen)).splitlines()
    told = ("recyclery_pool_memory_bytes{", "recyclery_pool_main_memory_bytes{")
    assert 0 < sum(float(line.split()[1]) for line in lines if line.startswith(told)) <= FLOOR


@both
def test_the_history_tells_of_no_more_than_the_container_holds(
    seen: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[Record] = []
    monkeypatch.setattr(Writer, "put", lambda _, new: records.extend(new))
    recorder = Recorder(structs.replace(SETTINGS, state_dir=tmp_path))
    recorder.record_snapshot(seen, LEARNED, SETTINGS)
    recorder.close()
    held = [record for record in records if isinstance(record, PoolSample)]
    assert 0 < sum(sample.tree_bytes + sample.main_bytes for sample in held) <= FLOOR


def test_what_a_preloaded_app_shares_counts_with_its_main_process() -> None:
    status = build_status(board(), PRELOADED, lambda _: 0)
    assert [one.tree_bytes for one in status.pools["slow"].children] == [50 * MIB] * 3
    assert status.container.unattributed_bytes == (500 - 280 - 3 * 50) * MIB
