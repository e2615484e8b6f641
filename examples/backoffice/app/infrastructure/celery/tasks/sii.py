"""The tax office (SII): reading a customer's documents with a browser."""

from app.infrastructure.celery import app
from app.scraping import PAGE_LOAD_TIMEOUT_SECONDS, ScrapedDocument, scrape_documents
from app.settings import site_password, site_url
from recyclery_worker.browser import browser


@app.task
def sync_documents(session_id: str, pages: int = 2) -> list[ScrapedDocument]:
    """Log in as `session_id` and return the documents of the first `pages` pages.

    Raises what `scrape_documents` raises.
    """
    with browser(page_load_timeout_seconds=PAGE_LOAD_TIMEOUT_SECONDS) as driver:
        return scrape_documents(driver, site_url(), session_id, site_password(), pages)
