"""What no recycle helps is said, with the figures and the way out."""

from dataclasses import replace

from recyclery.config.settings import Settings
from recyclery.decide.memory_model import PoolModel
from recyclery.decide.warnings import find_warnings
from recyclery.observe.snapshot import Owner, Snapshot, Supply
from support.snapshots import LEARNED, MIB, SETTINGS, child, process, settings_with, slow_view, snapshot


def said(seen: Snapshot, settings: Settings = SETTINGS) -> list[str]:
    return [notice.text for notice in find_warnings(seen, LEARNED, settings)]


def test_no_warning_is_made_when_all_is_well() -> None:
    assert said(snapshot(child(), pools=(slow_view(),))) == []


def test_pools_that_do_not_fit_even_fresh_are_told_with_the_limit_that_would() -> None:
    # 700 MiB in all, of which the idle child has 60: with a fresh one's 50 and the largest task's 300, 990.
    (text,) = said(snapshot(child(), floor_mib=700, pools=(slow_view(),)))
    assert "(slow 1 x 350 MiB) would take 990 MiB in all, past 950 MiB, 95 % of the limit" in text
    assert text.endswith("Raise the memory limit to 1042 MiB")


def test_with_several_at_a_time_a_lower_concurrency_is_the_other_way_out() -> None:
    children = [child(owner=Owner("slow", 20 + n, 2000)) for n in range(3)]
    (text,) = said(snapshot(*children, pools=(slow_view(concurrency=3),)), settings_with(concurrency=3))
    assert text.endswith(", or lower the concurrency of slow")


def test_a_browser_that_runs_now_is_not_counted_twice() -> None:
    busy = child(process(30, started=95.0, mib=290), task_id="t")
    assert said(snapshot(busy, floor_mib=900, pools=(slow_view(main_bytes=500 * MIB),))) == []


def test_no_warning_is_made_from_few_runs() -> None:
    few = replace(LEARNED, models={"slow": PoolModel(baseline_bytes=50 * MIB, tails=(900 * MIB,) * 9)})
    assert list(find_warnings(snapshot(child(), pools=(slow_view(),)), few, SETTINGS)) == []


def test_memory_that_belongs_to_no_pool_is_named_with_what_lies_in_dev_shm() -> None:
    seen = snapshot(child(), floor_mib=850, pools=(slow_view(main_bytes=60 * MIB),), shm_files_bytes=500 * MIB)
    text = said(seen)[-1]
    assert "730 MiB of the 850 MiB that cannot be reclaimed belong to no process that is watched, " in text
    assert ", 500 MiB of them files in /dev/shm" in text


def test_what_is_nearly_used_up_is_told_at_80_and_at_90_percent_with_who_has_most() -> None:
    threads = Supply("processes and threads", 800, 1000, holder="slow/20", held=610)
    disk = Supply("/tmp", 52 * MIB, 64 * MIB, in_bytes=True)  # a name
    plenty = Supply("inodes of /tmp", 10, 1000)
    first = list(find_warnings(snapshot(supplies=(threads, disk, plenty)), LEARNED, SETTINGS))
    assert [warning.text for warning in first] == [
        "processes and threads: 800 of 1000 are used (80 %), most by slow/20 (610); "
        "tasks fail when no more are left",
        "/tmp: 52 MiB of 64 MiB are used (81 %); tasks fail when no more are left",
    ]
    (second,) = find_warnings(snapshot(supplies=(threads._replace(used=900),)), LEARNED, SETTINGS)
    assert second.topic not in {warning.topic for warning in first}
