"""The leak storm's tasks: scraping that forgets its browsers and keeps its memory, and pings beside it."""

import time

from redis.client import Pipeline

from app.infrastructure.celery import app
from app.infrastructure.redis_client import redis_client
from app.leaks import fill_cache, forget_browser, leave_file, leave_memory, share_memory, take_memory
from app.scraping import PAGE_LOAD_TIMEOUT_SECONDS, ScrapedDocument, scrape_documents
from app.settings import site_password, site_url
from recyclery_worker.browser import browser

KEYS_LIVE_SECONDS = 86_400
PAGES_PER_SCRAPE = 2


@app.task
def scrape(
    number: int,
    run: str,
    *,
    forget: bool,
    leave_bytes: int,
    take_bytes: int = 0,
    cache_bytes: int = 0,
    share_bytes: int = 0,
    file_bytes: int = 0,
) -> int:
    """Scrape two pages, leak as told, count scrape `number` of `run`; return the documents read.

    `forget` leaves a running browser behind, `leave_bytes` that much touched memory; `take_bytes` are given
    back, after the browser has quit; `cache_bytes` are what the process's cache grows to over its first tasks.
    `share_bytes` are held and shared with forked processes for a moment, `file_bytes` left in a file without a
    name.
    The count comes last: a scrape cut off before its end is not counted, one that ran twice is counted twice.
    """
    documents = _scrape(f"storm-{number}", forget)
    take_memory(take_bytes)
    fill_cache(cache_bytes)
    leave_memory(leave_bytes)
    share_memory(share_bytes)
    leave_file(file_bytes)
    _count(f"recyclery:storm:{run}:scraped", number)
    return len(documents)


@app.task
def ping(number: int, run: str, sent_at: float) -> float:
    """Record and return the seconds from `sent_at` (time.time() of the sender) until now."""
    latency_seconds = time.time() - sent_at
    latency_key = f"recyclery:storm:{run}:latency"
    with redis_client().pipeline(transaction=True) as pipeline:
        pipeline.rpush(latency_key, latency_seconds)
        pipeline.expire(latency_key, KEYS_LIVE_SECONDS)
        _queue_count(pipeline, f"recyclery:storm:{run}:pinged", number)
        pipeline.execute()
    return latency_seconds


def _scrape(user: str, forget: bool) -> list[ScrapedDocument]:
    if forget:
        return scrape_documents(forget_browser(), site_url(), user, site_password(), PAGES_PER_SCRAPE)
    with browser(page_load_timeout_seconds=PAGE_LOAD_TIMEOUT_SECONDS) as driver:
        return scrape_documents(driver, site_url(), user, site_password(), PAGES_PER_SCRAPE)


def _count(key: str, number: int) -> None:
    with redis_client().pipeline(transaction=True) as pipeline:
        _queue_count(pipeline, key, number)
        pipeline.execute()


def _queue_count(pipeline: Pipeline, key: str, number: int) -> None:
    pipeline.hincrby(key, str(number), 1)
    pipeline.expire(key, KEYS_LIVE_SECONDS)
