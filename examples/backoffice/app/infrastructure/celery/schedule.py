"""What Celery Beat sends, and when (in the app's time zone)."""

from celery.schedules import crontab

from app.infrastructure.celery.routing import TASKS

SCHEDULE = {
    "send notifications": {"task": f"{TASKS}.notifications.process_pending", "schedule": 30.0},
    "write the calendar": {
        "task": f"{TASKS}.calendar.sync_calendar",
        "schedule": crontab(hour="5", minute="0"),
    },
    "shorten conversations": {"task": f"{TASKS}.memory.compact_memory", "schedule": crontab(minute="15")},
}
