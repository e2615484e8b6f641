"""The calendar of tax due dates."""

from collections.abc import Iterator
from datetime import date, timedelta

from app.infrastructure.celery import app
from app.infrastructure.redis_client import redis_client

CALENDAR_KEY = "backoffice:calendar"
MONTHS_AHEAD = 12
VAT_DUE_DAY = 20
SATURDAY = 5


@app.task
def sync_calendar(today: str | None = None) -> int:
    """Write the VAT due dates of the next twelve months to Redis, and return how many.

    `today` (YYYY-MM-DD) is for tests. The calendar is a hash of month to due date, replaced whole.
    """
    start = date.fromisoformat(today) if today else date.today()
    entries = {f"{due:%Y-%m}": due.isoformat() for due in list_due_dates(start)}
    with redis_client().pipeline(transaction=True) as pipeline:
        pipeline.delete(CALENDAR_KEY)
        for month, due in entries.items():
            pipeline.hset(CALENDAR_KEY, month, due)
        pipeline.execute()
    return len(entries)


def list_due_dates(start: date, months: int = MONTHS_AHEAD) -> Iterator[date]:
    """List the due date of each of `months` months from that of `start`, none on a weekend."""
    for ahead in range(months):
        years, month_index = divmod(start.month - 1 + ahead, 12)
        due = date(start.year + years, month_index + 1, VAT_DUE_DAY)
        while due.weekday() >= SATURDAY:
            due += timedelta(days=1)
        yield due
