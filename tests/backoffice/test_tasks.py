"""The back office's tasks go to their queues, do their work, and leave behind only what they are told to."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis

from app import leaks
from app.infrastructure.celery import app
from app.infrastructure.celery.tasks import calendar, memory, notifications, sii, storm
from app.infrastructure.redis_client import redis_client
from app.scraping import LoginRefused, SiteBroken
from taxoffice.documents import list_documents

DAY_SECONDS = 86_400
QUEUE_BY_TASK = {
    "notifications.process_pending": "high",
    "calendar.sync_calendar": "default",
    "memory.compact_memory": "default",
    "sii.sync_documents": "low",
    "storm.ping": "high",
    "storm.scrape": "low",
}


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Have everything that starts in the test put its temporary files here, and end it afterwards.

    Not pytest's tmp_path: Chrome's sockets need a short path.
    """
    with tempfile.TemporaryDirectory(prefix="leak-", ignore_cleanup_errors=True) as directory:
        monkeypatch.setenv("TMPDIR", directory)
        monkeypatch.setattr(tempfile, "tempdir", None)
        try:
            yield Path(directory)
        finally:
            for process in list_started(directory):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            for driver in leaks.forgotten_browsers:
                driver.service.process.wait()  # our own child: nobody else would reap it
            leaks.forgotten_browsers.clear()


def list_started(directory: str) -> set[psutil.Process]:
    """List what the test has started: what knows its directory, and what hangs below that.

    Chrome overwrites some processes' environment, and its crash handlers leave the tree.
    """
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        try:
            if (
                directory in f"{process.environ().get('TMPDIR')} {process.cmdline()}"
                and process.pid != os.getpid()
            ):
                found |= {process, *process.children(recursive=True)}
        except psutil.Error:
            continue  # it has just ended
    return found


def test_each_task_goes_to_its_queue() -> None:
    app.loader.import_default_modules()
    ours = {name for name in app.tasks if name.startswith("app.")}
    queues = {name: app.amqp.router.route({}, name)["queue"].name for name in ours}
    prefix = "app.infrastructure.celery.tasks."
    assert queues == {prefix + name: queue for name, queue in QUEUE_BY_TASK.items()}


@pytest.mark.parametrize(("name", "queue"), QUEUE_BY_TASK.items())
def test_a_task_is_sent_to_its_queue_alone(redis: Redis, redis_url: str, name: str, queue: str) -> None:
    with app.connection_for_write(redis_url) as connection:
        app.send_task(f"app.infrastructure.celery.tasks.{name}", connection=connection, ignore_result=True)
    lengths = {each: redis.llen(each) for each in ("high", "default", "low")}
    assert lengths == {each: int(each == queue) for each in lengths}


@pytest.mark.parametrize("task", [sii.sync_documents, storm.scrape])
def test_a_scraping_task_has_50_s_and_is_ended_after_60(task: Any) -> None:
    assert (task.soft_time_limit, task.time_limit) == (50, 60)


def test_tasks_are_acknowledged_late_and_returned_when_their_worker_dies() -> None:
    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost
    assert app.conf.worker_prefetch_multiplier == 1


def test_process_pending_sends_each_notification_once_in_order(redis: Redis) -> None:
    for text in ("one", "two"):
        notifications.queue_notification("ana", text)
    assert notifications.process_pending() == 2
    assert notifications.process_pending() == 0
    assert [sent["text"] for sent in notifications.list_sent()] == ["one", "two"]


def test_sync_calendar_writes_twelve_due_dates_none_on_a_weekend(redis: Redis) -> None:
    assert calendar.sync_calendar("2025-11-07") == 12
    due_dates = redis.hgetall(calendar.CALENDAR_KEY)
    assert due_dates["2025-12"] == "2025-12-22"  # the 20th is a Saturday
    assert len(due_dates) == 12
    assert all(date.fromisoformat(str(due)).weekday() < 5 for due in due_dates.values())


def test_compact_memory_keeps_the_last_messages_and_counts_the_words_of_the_others(redis: Redis) -> None:
    redis.rpush(f"{memory.MESSAGES_PREFIX}7", *[f"invoice number {index}" for index in range(25)])
    assert memory.compact_memory() == 5
    assert memory.compact_memory() == 0
    assert redis.lindex(f"{memory.MESSAGES_PREFIX}7", 0) == "invoice number 5"
    assert redis.zscore(f"{memory.SUMMARY_PREFIX}7", "invoice") == 5


def test_ping_records_its_latency_and_counts_itself(redis: Redis) -> None:
    storm.ping(3, "r1", time.time() - 2)
    assert redis.hgetall("recyclery:storm:r1:pinged") == {"3": "1"}
    (latency_seconds,) = map(float, redis.lrange("recyclery:storm:r1:latency", 0, -1))
    assert 2 <= latency_seconds < 3
    assert 0 < redis.ttl("recyclery:storm:r1:latency") <= DAY_SECONDS
    assert 0 < redis.ttl("recyclery:storm:r1:pinged") <= DAY_SECONDS


def test_left_memory_is_really_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "left_memory", [])
    size_bytes = 64 * 1024 * 1024
    before_bytes = psutil.Process().memory_info().rss
    leaks.leave_memory(size_bytes)
    assert psutil.Process().memory_info().rss - before_bytes > 0.9 * size_bytes


def test_taken_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "TAKEN_SECONDS", 0)
    before_bytes = psutil.Process().memory_info().rss
    leaks.take_memory(64 * 1024 * 1024)
    assert psutil.Process().memory_info().rss - before_bytes < 8 * 1024 * 1024


def test_a_cache_grows_over_six_tasks_and_then_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "cache", [])
    sizes = []
    for _ in range(8):
        leaks.fill_cache(600)
        sizes.append(sum(map(len, leaks.cache)))
    assert sizes == [100, 200, 300, 400, 500, 600, 600, 600]


def test_a_forked_child_has_a_redis_connection_of_its_own(redis: Redis) -> None:
    connection_id = redis_client().client_id()
    child = os.fork()
    if child == 0:
        redis_client().set("child", redis_client().client_id())
        os._exit(0)
    os.waitpid(child, 0)
    assert redis.get("child") not in (None, str(connection_id))
    assert redis_client().client_id() == connection_id


@pytest.mark.browser
def test_sync_documents_reads_exactly_the_documents_the_site_has(site: str, temporary: Path) -> None:
    expected = [asdict(document) for document in list_documents("ana")]
    assert sii.sync_documents("ana", pages=2) == expected[:20]
    assert sii.sync_documents("ana", pages=99) == expected


@pytest.mark.browser
def test_a_wrong_password_ends_sync_documents_with_the_sites_reason(
    site: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SITE_PASSWORD", "wrong")
    with pytest.raises(LoginRefused, match=r"The user or the password is wrong\."):
        sii.sync_documents("ana")


@pytest.mark.browser
@pytest.mark.parametrize(
    ("trouble", "error", "text"),
    [
        ("loop", LoginRefused, "asked for the login again"),
        ("error", SiteBroken, "500 Internal Server Error"),
        ("cut", SiteBroken, "ERR_EMPTY_RESPONSE"),
        ("malformed", SiteBroken, "JSON"),
    ],
)
def test_each_trouble_of_the_site_has_its_clear_error(
    site: str, temporary: Path, trouble: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        sii.sync_documents(f"ana+trouble={trouble}")


@pytest.mark.browser
def test_a_clean_scrape_counts_itself_once_and_leaves_no_browser(
    site: str, redis: Redis, temporary: Path
) -> None:
    assert storm.scrape(4, "r1", forget=False, leave_bytes=0) == 20
    assert redis.hgetall("recyclery:storm:r1:scraped") == {"4": "1"}
    assert 0 < redis.ttl("recyclery:storm:r1:scraped") <= DAY_SECONDS
    assert list_started(str(temporary)) == set()


@pytest.mark.browser
def test_a_forgetful_scrape_leaves_a_browser_that_still_answers(
    site: str, redis: Redis, temporary: Path
) -> None:
    assert storm.scrape(5, "r1", forget=True, leave_bytes=0) == 20
    assert redis.hgetall("recyclery:storm:r1:scraped") == {"5": "1"}
    (driver,) = leaks.forgotten_browsers
    assert driver.execute_script("return 1 + 1") == 2
    names = {process.name() for process in psutil.Process(driver.service.process.pid).children(recursive=True)}
    assert any("chrom" in name for name in names)


@pytest.mark.browser
def test_a_scrape_that_fails_is_not_counted(site: str, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_PASSWORD", "wrong")
    with pytest.raises(LoginRefused):
        storm.scrape(6, "r1", forget=False, leave_bytes=0)
    assert not redis.exists("recyclery:storm:r1:scraped")
